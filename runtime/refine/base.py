"""What stage 2 is asked for, and what it gives, whichever refiner does it. numpy and torch alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol

import numpy as np
from numpy.typing import NDArray

from ..generators.base import A, Float32, Sampler
from ..sampling import Sampling
from .settings import AdamSettings
from .weights import StructuralWeights


class Objective(Protocol[A]):
    """The loss of each trial's picture against its target, with its gradient."""

    def value_and_gradient(self, params: Mapping[str, A]) -> tuple[A, dict[str, A], A]:
        """Evaluate a batch.

        Returns
        -------
        loss : array of shape (n,)
        gradients : dict of arrays shaped like `params`
            Of each trial's own loss. Parameters without one stay as they are.
        image : array of shape (n, 3, H, W)
        """
        ...


class Computes(Protocol[A]):
    """What a refiner needs of a :class:`~minddiffuser.runtime.backends.base.Backend`, where each call is described."""

    def generator(
        self, decoded: Any, noise: Any, sampling: Sampling | None = None, *, backprop_steps: int | None = None
    ) -> Sampler[A]: ...

    def objective(
        self, generator: Any, target: Float32, settings: AdamSettings, semantic_target: Float32 | None = None
    ) -> Objective[A]: ...

    def structural(
        self,
        x0: A,
        target: Float32,
        weights: StructuralWeights,
        semantic: tuple[Float32, float] | None = None,
    ) -> tuple[A, A, A]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem(Generic[A]):
    """Stage 2 of n trials.

    Attributes
    ----------
    backend
        What computes.
    start
        ``start(trials)``: context and latent of some of the trials, as :meth:`Computes.generator` takes them.
    noise
        ``noise(candidate)``: start noise (n, 4, h, w) float32 of every trial; candidate 0 is that of stage 1.
    generator
        Of stage 1.
    stage1 : (n, 3, H, W)
        Its pictures.
    sampling
        Its settings.
    target : (n, 6, n_tokens, d_vision) float32
        Decoded structure.
    mask : (6, n_tokens, d_vision) bool
        Which of its dimensions are trusted.
    semantic : (n, d) float32 or None
        Decoded semantic feature.
    rows_at_once
        The most rows that fit the memory and the backend together.
    """

    backend: Computes[A]
    start: Callable[[Sequence[int]], Any]
    noise: Callable[[int], Float32]
    generator: Sampler[A]
    stage1: A
    sampling: Sampling
    target: Float32
    mask: NDArray[np.bool_]
    semantic: Float32 | None
    rows_at_once: int


Loss = Callable[[Any], tuple[Any, Any, Any]]
"""Clean latents (n, 4, h, w) -> loss (n,), its gradient at the latents, pictures (n, 3, H, W)."""


@dataclass(frozen=True, eq=False)
class Trajectory(Generic[A]):
    """Where latents came to: clean ones (n, 4, h, w), their pictures (n, 3, H, W), and the losses on the way.

    `curve` is (n_evaluations, n) float64.
    """

    latent: A
    image: A
    curve: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step(Generic[A]):
    """How far a refinement is.

    Attributes
    ----------
    step, steps
        Work done, and all of it.
    rows
        The trials that this step was about, k of them.
    image : (k, 3, H, W) or None
        What they look like now, where that is known: of a refiner inside the sampler, the clean estimate; while a
        latent goes down the loss, before and after sampling, its picture. The last one need not be the picture that is
        kept.
    """

    step: int
    steps: int
    rows: Sequence[int]
    image: A | None


OnStep = Callable[[Step[Any]], None]


@dataclass(frozen=True, eq=False)
class Refined(Generic[A]):
    """What a refinement found.

    Parameters
    ----------
    params : dict of arrays
        The best that was found for each trial: parameters of its generator, or under "latent" the clean latent.
    image : array of shape (n, 3, H, W)
        The picture that belongs to `params`.
    loss_curve : float64 array of shape (n_evaluations, n)
        Of `adam`, row k is the loss after k updates: row 0 is stage 1, and ``steps`` updates make ``steps + 1`` rows;
        there are fewer when every trial stopped early, and NaN in the rows after a trial's stop. Of `guided`, the loss
        of the clean estimate at each guided step of the best candidate, and in the last row that of the picture that
        it was sampled to.
    best_step : int64 array of shape (n,)
        The row of `loss_curve` that belongs to `image`; of `guided`, to the picture before it is finished.
    last_step : int64 array of shape (n,)
        The last row of each trial.
    failed : bool array of shape (n,)
        The loss became NaN or infinite; `image` is the best before that (stage 1, if at once).
    candidate_losses : float64 array of shape (n_candidates, n), optional
        Of `guided`, the loss of each candidate's picture before it is finished.
    finish_curve : float64 array of shape (n_finish + 1, n), optional
        Of `guided`, the loss of each iterate of the steps that finish the picture, the sampled one first, with the
        semantic term as it weighs there; `image` is the lowest. NaN where a trial failed.
    """

    params: dict[str, A]
    image: A
    loss_curve: NDArray[np.float64]
    best_step: NDArray[np.int64]
    last_step: NDArray[np.int64]
    failed: NDArray[np.bool_]
    candidate_losses: NDArray[np.float64] | None = None
    finish_curve: NDArray[np.float64] | None = None
