"""Voxel-selected ridge regression, the paper's decoder (section 4.2.1)."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError
from ..solvers.columns import Columns
from .base import Array, Progress

if TYPE_CHECKING:
    from ..solvers.ridge import SparseRidge

# Voxels per target. The paper names no number for the semantic feature or the embedding; a single layer's fits.
N_SELECTED = {"context": 250, "latent": 4000, "structure": 350, "semantic": 350, "embedding": 350}
# The paper's penalty, on z-scored responses and targets.
ALPHA = 0.15
# Blocks are whole jobs of the solver, so that their number changes no bit; and not so small that starting one counts.
_JOB, _SMALLEST_BLOCK = 128, 1024


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """Ridge settings of one feature.

    Attributes
    ----------
    n_selected : int
        Voxels (or other values of a trial) per target; as many as there are when there are fewer.
    alpha : float
        L2 penalty, on z-scored responses and targets.
    """

    n_selected: int
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        if type(self.n_selected) is not int or self.n_selected < 1:
            raise InputError(
                f"n_selected is {self.n_selected!r:.60}, expected a whole number of at least 1 voxel per target"
            )
        # Compared, not asked whether it is finite: a whole number may be larger than any float.
        if type(self.alpha) not in (int, float) or not 0 <= self.alpha <= sys.float_info.max:
            raise InputError(f"alpha is {self.alpha!r:.60}, expected a finite penalty of at least 0")

    @classmethod
    def for_feature(cls, feature: str, **options: Any) -> Self:
        """Give the paper's settings for "context", "latent", "structure", "semantic" or "embedding"."""
        return cls(**{"n_selected": N_SELECTED[feature], **options})

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

        Nothing is held out, so that `pictures` are not looked at.
        """
        from ..solvers.ridge import fit_ridge  # scipy, which reading the settings does not need

        solved = fit_ridge(
            responses.reshape(len(responses), -1),
            targets,
            n_selected=self.n_selected,
            alpha=self.alpha,
            n_threads=n_threads,
            progress=progress,
            dtype=np.float32,
        )
        return FittedRidge(solved)

    def block(self, n_trials: int, n_values: int) -> int | None:
        """So many targets that their systems cost twice the responses' Gram matrix, which every block makes anew."""
        if self.n_selected >= n_values:  # one factorisation serves all targets, the more the better
            return None
        gram, system = n_trials * n_values**2, self.n_selected**3 / 3
        return max(_SMALLEST_BLOCK, _JOB * math.ceil(2 * gram / system / _JOB))

    def describe(self) -> dict[str, Any]:
        return {"fitter": "ridge", "n_selected": self.n_selected, "alpha": self.alpha}


@dataclass(frozen=True)
class FittedRidge:
    """A ridge with its sparse weights in float32."""

    solved: SparseRidge
    kind: ClassVar[str] = "linear"

    def predict(self, responses: Array, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        return self.solved.predict(responses.reshape(len(responses), -1), start, stop)

    def arrays(self) -> dict[str, Array]:
        return {"index": self.solved.index, "weight": self.solved.weight, "bias": self.solved.bias}

    def described(self) -> dict[str, Any]:
        return {}
