"""Voxel-selected ridge regression, the paper's decoder (section 4.2.1)."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import ResponseLayout
from ...runtime.errors import InputError
from ..solvers.columns import Columns
from .base import Array, Predictor, Progress

if TYPE_CHECKING:
    from ..solvers.ridge import SparseRidge

# Voxels per target. The paper names no number for the semantic feature or the embedding; a single layer's fits.
N_SELECTED = {"context": 250, "latent": 4000, "structure": 350, "semantic": 350, "embedding": 350}
# The paper's penalty, on z-scored responses and targets.
ALPHA = 0.15
# Blocks are whole jobs of the solver, so that their number changes no bit; and not so small that starting one counts.
_JOB, _SMALLEST_BLOCK = 128, 1024
# What alpha is when cross-validation chooses it, and over how many folds of the training pictures, if they are enough.
BY_CROSS_VALIDATION, _N_FOLDS = "cv", 5


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """Ridge settings of one feature.

    Attributes
    ----------
    n_selected : int
        Voxels (or other values of a trial) per target; as many as there are when there are fewer.
    alpha : float or "cv"
        L2 penalty, on z-scored responses and targets; "cv" takes that of the least squared error in cross-validation
        over the training pictures, one for a feature.
    device : str
        "cpu", or a CUDA device of PyTorch's.
    """

    n_selected: int
    alpha: float | str = ALPHA
    device: str = "cpu"

    def __post_init__(self) -> None:
        if type(self.n_selected) is not int or self.n_selected < 1:
            raise InputError(
                f"n_selected is {self.n_selected!r:.60}, expected a whole number of at least 1 voxel per target"
            )
        # Compared, not asked whether it is finite: a whole number may be larger than any float.
        if not isinstance(self.device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise InputError(f"device is {self.device!r:.60}, expected cpu, cuda or cuda:0")
        if self.alpha == BY_CROSS_VALIDATION:
            return
        if (
            isinstance(self.alpha, str)
            or type(self.alpha) not in (int, float)
            or not 0 <= self.alpha <= sys.float_info.max
        ):
            raise InputError(f"alpha is {self.alpha!r:.60}, expected a finite penalty of at least 0, or cv")

    @classmethod
    def for_feature(cls, feature: str, **options: Any) -> Self:
        """Give the paper's settings for "context", "latent", "structure", "semantic" or "embedding"."""
        return cls(**{"n_selected": N_SELECTED[feature], **options})

    def fitted_to(self, layout: ResponseLayout) -> Self:
        """Itself, where there is its device; see :func:`~.base.fitted_to`.

        Raises
        ------
        InputError
            There is none.
        """
        if self.device != "cpu":
            from ..solvers.on_device import opened

            opened(self.device)
        return self

    def fit(
        self,
        responses: Array,
        targets: Columns,
        *,
        pictures: NDArray[np.integer[Any]] | None = None,
        n_threads: int | None = None,
        progress: Progress | None = None,
    ) -> FittedRidge:
        """Fit to z-scored responses (n_trials, *response_shape) and z-scored targets (n_trials, n_targets).

        `pictures` are looked at where alpha is chosen by cross-validation.
        """
        from ..solvers.ridge import fit_ridge  # scipy, which reading the settings does not need

        decided, decision = self.settled(responses, targets, pictures=pictures, n_threads=n_threads)
        flat = responses.reshape(len(responses), -1)
        assert isinstance(decided.alpha, int | float)
        settings: dict[str, Any] = {"n_selected": self.n_selected, "alpha": decided.alpha}
        if self.device == "cpu":
            solved = fit_ridge(flat, targets, **settings, n_threads=n_threads, progress=progress, dtype=np.float32)
        else:
            from ..solvers.on_device import fit_ridge_on_device

            solved = fit_ridge_on_device(
                flat, targets, **settings, device=self.device, progress=progress, dtype=np.float32
            )
        return FittedRidge(solved, decision)

    def settled(
        self,
        responses: Array,
        targets: Columns,
        *,
        pictures: NDArray[np.integer[Any]] | None = None,
        n_threads: int | None = None,
    ) -> tuple[Self, dict[str, Any]]:
        """Give the same with a penalty in place of "cv", and what was decided; see :class:`~.base.Decoder`."""
        if self.alpha != BY_CROSS_VALIDATION:
            return self, {}
        from ..folds import folds_of
        from ..solvers.penalty import choose_alpha

        shown = np.arange(len(responses)) if pictures is None else pictures
        n_folds = max(2, min(_N_FOLDS, len(np.unique(shown)) // 2))
        alpha = choose_alpha(
            responses.reshape(len(responses), -1),
            targets,
            folds_of(shown, n_folds),
            n_selected=self.n_selected,
            n_threads=n_threads,
        )
        return replace(self, alpha=alpha), {"alpha": alpha}

    def predictor(self, responses: Array, others: Array, *, n_targets: int) -> Predictor | None:
        """See :func:`~.base.predictor`; None where every target has voxels of its own, and on a CUDA device.

        Raises
        ------
        InputError
            The penalty is not chosen yet.
        """
        flat, new = (rows.reshape(len(rows), -1) for rows in (responses, others))
        if self.n_selected < flat.shape[1] or self.device != "cpu":
            return None
        if not isinstance(self.alpha, int | float):
            raise InputError(f"alpha is {self.alpha!r}, which is chosen first: call settled()")
        from ..solvers.unselected import Unselected

        return Unselected(flat, new, self.alpha, n_targets=n_targets)

    def block(self, n_trials: int, n_values: int) -> int | None:
        """So many targets that their systems cost twice the responses' Gram matrix, which every block makes anew."""
        if self.n_selected >= n_values:  # one factorisation serves all targets, the more the better
            return None
        gram, system = n_trials * n_values**2, self.n_selected**3 / 3
        return max(_SMALLEST_BLOCK, _JOB * math.ceil(2 * gram / system / _JOB))

    def describe(self) -> dict[str, Any]:
        return {"fitter": "ridge", "n_selected": self.n_selected, "alpha": self.alpha, "device": self.device}


@dataclass(frozen=True)
class FittedRidge:
    """A ridge with its sparse weights in float32."""

    solved: SparseRidge
    decision: dict[str, Any] = field(default_factory=dict)
    kind: ClassVar[str] = "linear"

    def predict(self, responses: Array, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        return self.solved.predict(responses.reshape(len(responses), -1), start, stop)

    def arrays(self) -> dict[str, Array]:
        return {"index": self.solved.index, "weight": self.solved.weight, "bias": self.solved.bias}

    def described(self) -> dict[str, Any]:
        """The penalty, where cross-validation chose it."""
        return self.decision
