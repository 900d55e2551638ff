"""The `guided` refiner: several start noises for each trial, a guided pass from each, and the lowest loss kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..generators.base import A, Sampler
from .arrays import copied, filled
from .base import OnStep, Problem, Refined, Step
from .guided import Guided, guided_pass
from .settings import GuidedSettings
from .target import check_semantic_target
from .weights import StructuralWeights


def refine(problem: Problem[A], settings: GuidedSettings, on_step: OnStep) -> Refined[A]:
    """Guide every trial from each candidate's noise, and keep the picture with the lowest structural loss.

    The loss that chooses is that of the finished picture against the decoded target; nothing looks at the stimulus.
    Candidates of all trials go through the sampler together, `rows_at_once` of them. A trial all of whose candidates
    came to nothing finite keeps its picture of stage 1.

    Raises
    ------
    InputError
        A generator that does not sample in steps; a semantic weight without a semantic target, or a target that is not
        finite where it counts.
    """
    if not isinstance(problem.generator, Sampler):
        raise InputError(
            f"a {type(problem.generator).__name__} was given, which does not sample in steps, and the refiner guided "
            "works inside the sampler: refine with adam"
        )
    n, n_candidates = len(problem.target), settings.candidates or 1
    rows = [(candidate, trial) for candidate in range(n_candidates) for trial in range(n)]
    passes = _Passes(problem, settings, on_step, n_rows=len(rows))
    losses = np.full((n_candidates, n), np.nan)
    best = np.full(n, np.inf)
    curve = np.full((passes.n_guided + 1, n), np.nan)
    image, latent = copied(problem.stage1), None
    for at in range(0, len(rows), problem.rows_at_once):
        some = rows[at : at + problem.rows_at_once]
        found = passes.run(some)
        latent = filled(found.latent, n, np.nan) if latent is None else latent
        for row, (candidate, trial) in enumerate(some):
            losses[candidate, trial] = loss = found.curve[-1, row]
            if loss < best[trial]:  # NaN is not
                best[trial], curve[:, trial] = loss, found.curve[:, row]
                latent[trial], image[trial] = found.latent[row], found.image[row]
    last = np.full(n, len(curve) - 1, np.int64)
    return Refined(
        {"latent": latent} if latent is not None else {}, image, curve, last, last.copy(), np.isinf(best), losses
    )


class _Passes:
    """Guided passes of any rows (candidate, trial)."""

    def __init__(self, problem: Problem[Any], settings: GuidedSettings, on_step: OnStep, *, n_rows: int) -> None:
        self._problem, self._settings, self._on_step = problem, settings, on_step
        self._sampling = settings.sampling(problem.sampling)
        self.n_guided = settings.n_guided(problem.sampling)
        self._weights = StructuralWeights.of_settings(settings, problem.target, problem.mask)
        self._semantic: NDArray[np.float32] | None = None
        if settings.semantic_weight > 0:
            self._semantic = check_semantic_target(problem.semantic, len(problem.target), settings)
        self._done, self._n_rows = 0, n_rows
        self._noises: dict[int, NDArray[np.float32]] = {}

    def run(self, rows: Sequence[tuple[int, int]]) -> Guided[Any]:
        """Sample these rows together."""
        problem, settings = self._problem, self._settings
        trials, noise = [trial for _, trial in rows], self._noise(rows)
        sampler = problem.backend.generator(problem.start(trials), noise, self._sampling)
        target, weights = problem.target[trials], self._weights.rows(trials)
        semantic = None if self._semantic is None else (self._semantic[trials], settings.semantic_weight)
        n_steps, n_trials = len(sampler.schedule), len(problem.target)

        def report(k: int, image: Any) -> None:
            done = (self._done * n_steps + k * len(rows)) // n_trials  # in steps of each trial's candidates
            self._on_step(Step(step=done, steps=self._n_rows * n_steps // n_trials, rows=trials, image=image))

        found = guided_pass(
            sampler,
            sampler.start(noise),
            lambda x0: problem.backend.structural(x0, target, weights, semantic),
            step_size=settings.step_size,
            n_guided=self.n_guided,
            jacobian=settings.jacobian,
            on_step=report,
        )
        self._done += len(rows)
        return found

    def _noise(self, rows: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        wanted = {candidate for candidate, _ in rows}
        self._noises = {c: self._noises[c] if c in self._noises else self._problem.noise(c) for c in sorted(wanted)}
        return np.stack([self._noises[candidate][trial] for candidate, trial in rows])
