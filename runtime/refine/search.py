"""The `guided` refiner: guided passes from several start noises per trial, the lowest loss kept and finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..generators.base import A, Sampler
from .arrays import as_float64, copied, filled
from .base import Loss, OnStep, Problem, Refined, Step, Trajectory
from .descent import descended, finished
from .guided import guided_pass
from .loss import semantic_loss, structural_loss
from .settings import GuidedSettings
from .target import check_semantic_target, check_target
from .weights import StructuralWeights

T = TypeVar("T")


def refine(problem: Problem[A], settings: GuidedSettings, on_step: OnStep) -> Refined[A]:
    """Guide every trial from each candidate's noise, keep the picture with the lowest loss, and finish that one.

    Every candidate begins at the same latent, the decoded one after `start_steps` down the loss, with its own noise.
    The kept one goes down the loss by `finish_steps` more, and the best of these iterates is what is returned.

    The loss that chooses is that of the sampled picture against the decoded target; nothing looks at the stimulus.
    Candidates of all trials go through the sampler together, `rows_at_once` of them. A trial all of whose candidates
    came to nothing finite keeps its picture of stage 1.

    Raises
    ------
    InputError
        A generator that does not sample in steps; candidates that nobody settled; a semantic weight without a semantic
        target, or a target that is not finite where it counts.
    """
    if settings.candidates is None:
        raise InputError(
            "candidates is None, and a budget or a deadline was given: say how many candidates that is first, with "
            "minddiffuser.runtime.run.budget.settle, as a run does, or give candidates"
        )
    if not isinstance(problem.generator, Sampler):
        raise InputError(
            f"a {type(problem.generator).__name__} was given, which does not sample in steps, and the refiner guided "
            "works inside the sampler: refine with adam"
        )
    n, n_candidates = len(problem.target), settings.candidates
    rows = [(candidate, trial) for candidate in range(n_candidates) for trial in range(n)]
    passes = Passes(problem, settings, on_step)
    start = passes.start()
    losses = np.full((n_candidates, n), np.nan)
    best = np.full(n, np.inf)
    curve = np.full((passes.n_guided + 1, n), np.nan)
    finish = np.full((settings.n_finish + 1, n), np.nan) if settings.n_finish else None
    image = copied(problem.stage1)
    latent: Any = None
    for some in _by(problem.rows_at_once, rows):
        found = passes.run(some, start)
        latent = filled(found.latent, n, np.nan) if latent is None else latent
        for row, (candidate, trial) in enumerate(some):
            losses[candidate, trial] = loss = found.curve[-1, row]
            if loss < best[trial]:  # NaN is not
                best[trial], curve[:, trial] = loss, found.curve[:, row]
                latent[trial], image[trial] = found.latent[row], found.image[row]
    if finish is not None:
        for trials in _by(problem.rows_at_once, np.flatnonzero(np.isfinite(best)).tolist()):
            found = passes.finish(trials, latent[trials])
            latent[trials], image[trials], finish[:, trials] = found.latent, found.image, found.curve
    last = np.full(n, len(curve) - 1, np.int64)
    return Refined(
        {"latent": latent} if latent is not None else {},
        image,
        curve,
        last,
        last.copy(),
        np.isinf(best),
        losses,
        finish,
    )


class Passes:
    """Guided passes of any rows (candidate, trial): the pieces of :func:`refine`, for whoever puts them together.

    Parameters
    ----------
    problem
    settings
        Their `candidates` are not looked at, but for the number of steps that is reported.
    on_step
        May raise, which ends the piece that runs.

    Raises
    ------
    InputError
        As :func:`refine`.
    """

    def __init__(self, problem: Problem[Any], settings: GuidedSettings, on_step: OnStep) -> None:
        self._problem, self._settings, self._on_step = problem, settings, on_step
        self._sampling = settings.sampling(problem.sampling)
        self.n_guided = settings.n_guided(problem.sampling)
        check_target(problem.target, problem.mask)  # here, where rows are still the batch's
        self._weights = StructuralWeights.of_settings(settings, problem.target, problem.mask)
        self._semantic: NDArray[np.float32] | None = None
        if settings.semantic_weight > 0:
            self._semantic = check_semantic_target(problem.semantic, len(problem.target), settings)
        self._noises: dict[int, NDArray[np.float32]] = {}
        self._done = 0  # steps of single rows

    def start(self) -> NDArray[np.float32]:
        """The clean latents (n, 4, h, w) that every candidate is noised from."""
        latents = [self._descended(some) for some in _by(self._problem.rows_at_once, range(len(self._problem.target)))]
        return np.concatenate(latents)

    def run(self, rows: Sequence[tuple[int, int]], latents: NDArray[np.float32]) -> Trajectory[Any]:
        """Sample these rows together, from the latents (n, 4, h, w) of :meth:`start`."""
        trials, noise = [trial for _, trial in rows], self._noise(rows)
        start = replace(self._problem.start(trials), latent=latents[trials])
        sampler = self._problem.backend.generator(start, noise, self._sampling)
        found = guided_pass(
            sampler,
            sampler.start(noise),
            self._loss(trials, self._settings.semantic_weight),
            step_size=self._settings.step_size,
            n_guided=self.n_guided,
            jacobian=self._settings.jacobian,
            on_step=self._report(trials),
        )
        self._done += len(rows) * len(sampler.schedule)
        return found

    def finish(self, trials: Sequence[int], latent: Any) -> Trajectory[Any]:
        """Move latents (k, 4, h, w) of these k trials down the loss, and keep the best iterate of each."""
        found = finished(
            latent,
            self._loss(trials, self._settings.finish_semantic_weight),
            steps=self._settings.n_finish,
            step_size=self._settings.finish_step_size,
            smoothing=self._settings.finish_smoothing,
            on_step=self._report(trials),
        )
        self._done += len(trials) * self._settings.n_finish
        return found

    def _descended(self, trials: Sequence[int]) -> NDArray[np.float32]:
        settings, latent = self._settings, np.asarray(self._problem.start(trials).latent)
        found = descended(
            latent,
            self._loss(trials, 0.0),  # structure first: the meaning comes back in sampling
            steps=settings.n_start,
            step_size=settings.start_step_size,
            on_step=self._report(trials),
        )
        self._done += len(trials) * settings.n_start
        return found

    def _loss(self, trials: Sequence[int], semantic_weight: float) -> Loss:
        rows = list(trials)
        return relative_loss(
            self._problem.backend.structural,
            self._problem.target[rows],
            self._weights.rows(rows),
            self._semantic[rows] if self._semantic is not None and semantic_weight > 0 else None,
            semantic_weight,
        )

    def _report(self, trials: Sequence[int]) -> Callable[[int, Any], None]:
        n, steps = len(self._problem.target), self._settings.n_reports(self._problem.sampling)

        def report(k: int, image: Any) -> None:
            done = (self._done + k * len(trials)) // n
            self._on_step(Step(step=done, steps=steps, rows=trials, image=image))

        return report

    def _noise(self, rows: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        wanted = {candidate for candidate, _ in rows}
        self._noises = {c: self._noises[c] if c in self._noises else self._problem.noise(c) for c in sorted(wanted)}
        return np.stack([self._noises[candidate][trial] for candidate, trial in rows])


def relative_loss(
    structural: Callable[..., tuple[Any, Any, Any]],
    target: NDArray[np.float32],
    weights: StructuralWeights,
    semantic: NDArray[np.float32] | None = None,
    semantic_weight: float = 0.0,
) -> Loss:
    """Each term of eq. 6 over what it would be for a picture all of whose features are 0, the second one weighted.

    So neither the layers' units nor their number decide what `semantic_weight` means, and a loss of 1 is that of
    knowing nothing. Every trial is divided by its own numbers.

    Parameters
    ----------
    structural
        Of a backend.
    target : (n, 6, n_tokens, d_vision)
    weights
    semantic : (n, d), optional
    semantic_weight : float
    """
    size = structural_loss(np.zeros_like(target), weights.counted(target), weights.dimensions, weights.layers)
    if semantic is None:
        scaled = replace(weights, layers=weights.layers / _or_one(size)[:, None])
        return lambda x0: structural(x0, target, scaled)
    # One weight goes for all trials, layers have their own: the whole is larger by the second term's size.
    of_semantic = _or_one(semantic_loss(np.zeros_like(semantic), semantic))
    scaled = replace(weights, layers=weights.layers * (of_semantic / _or_one(size))[:, None])

    def loss(x0: Any) -> tuple[Any, Any, Any]:
        value, gradient, image = structural(x0, target, scaled, (semantic, semantic_weight))
        return as_float64(value) / of_semantic, gradient, image

    return loss


def _or_one(sizes: NDArray[Any]) -> NDArray[Any]:
    """Of a target that is 0 the difference itself is what counts."""
    return np.where(sizes > 0, sizes, 1)


def _by(size: int, rows: Sequence[T]) -> Iterator[Sequence[T]]:
    return (rows[at : at + size] for at in range(0, len(rows), size))
