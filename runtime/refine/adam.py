"""Stage 2 as in the paper: Adam on a generator's parameters. numpy and torch alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from ..generators.base import A, Projecting
from .arrays import as_float64, assign, copied, zeros_like
from .base import Objective, OnStep, Problem, Refined, Step
from .settings import AdamSettings

Params = dict[str, Any]  # name -> array with one row per trial, all numpy or all torch


def refine(problem: Problem[A], settings: AdamSettings, on_step: OnStep) -> Refined[A]:
    """Refine the parameters that stage 1 began with; see :func:`minimise`."""
    generator, rows = problem.generator, range(len(problem.target))
    objective = problem.backend.objective(generator, problem.target, settings, problem.semantic)

    def report(step: int, _loss: NDArray[np.float64], image: A) -> None:
        on_step(Step(step=step, steps=settings.steps, rows=rows, image=image))

    project = generator.project if isinstance(generator, Projecting) else None
    return minimise(objective, generator.initial(), settings, report, project=project)


def minimise(
    objective: Objective[A],
    params: Mapping[str, A],
    settings: AdamSettings,
    on_step: Callable[[int, NDArray[np.float64], A], None] | None = None,
    *,
    project: Callable[[Mapping[str, A]], dict[str, A]] | None = None,
) -> Refined[A]:
    """Minimise each trial's loss by Adam (Kingma and Ba 2015, algorithm 1) and keep its best iterate.

    Trials are independent: each has its own best iterate and its own stop, and a trial that stops or fails leaves the
    others' numbers untouched. The reference code has neither and keeps the last of 300 iterations.

    Parameters
    ----------
    objective : Objective
    params : mapping of arrays, one row per trial
        The start, left unchanged.
    settings : AdamSettings
        `steps`, `learning_rate`, `decay`, `patience` and `min_change` act here; the others on the objective.
    on_step : callable, optional
        Called after evaluation k = 0 ... steps with k, the losses, (n,) float64, and the pictures.
    project : callable, optional
        Brings parameters back to where the generator's pictures come from, after each update; see
        :class:`~minddiffuser.runtime.generators.base.Projecting`.

    Returns
    -------
    Refined

    Raises
    ------
    ShapeError
        The objective's loss is not one number per trial.
    """
    current: Params = {name: copied(array) for name, array in params.items()}
    n = len(next(iter(current.values())))
    progress = _Progress(n)
    adam = Adam()
    best_params: Params = {}
    best_image: Any = None
    for step in range(settings.steps + 1):
        loss, gradients, image = objective.value_and_gradient(current)
        better = progress.record(as_float64(loss), settings)
        if best_image is None:
            best_params, best_image = {name: copied(array) for name, array in current.items()}, copied(image)
        else:
            assign(best_image, image, better)
            for name, array in current.items():
                assign(best_params[name], array, better)
        if on_step is not None:
            on_step(step, progress.curve[-1].copy(), image)
        if step == settings.steps or not progress.running.any():
            break
        rate = settings.learning_rate * settings.decay**step
        rows = np.flatnonzero(progress.running).tolist()
        adam.update(current, gradients, rate, rows)
        if project is not None:  # a trial that has stopped stays as it is
            moved: Params = dict(project(current))
            for name, array in moved.items():
                current[name][rows] = array[rows]
    return Refined(
        best_params, best_image, np.stack(progress.curve), progress.best_step, progress.last_step, progress.failed
    )


class Adam:
    """Adam with bias correction on dictionaries of numpy arrays or torch tensors, changed in place.

    beta1 = 0.9, beta2 = 0.999, eps = 1e-8, as torch.optim.Adam.
    """

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        self._betas, self._eps = (beta1, beta2), eps
        self._step = 0
        self._first: Params = {}
        self._second: Params = {}

    def update(self, params: Params, gradients: Mapping[str, Any], rate: float, rows: list[int]) -> None:
        """Take one step in `rows` of every parameter that has a gradient; rows once left out must stay out."""
        self._step += 1
        beta1, beta2 = self._betas
        for name, gradient in gradients.items():
            part = gradient[rows]
            if name not in self._first:
                self._first[name], self._second[name] = zeros_like(gradient), zeros_like(gradient)
            first = beta1 * self._first[name][rows] + (1 - beta1) * part
            second = beta2 * self._second[name][rows] + (1 - beta2) * part**2
            self._first[name][rows], self._second[name][rows] = first, second
            scale = (second / (1 - beta2**self._step)) ** 0.5 + self._eps
            params[name][rows] = params[name][rows] - rate * (first / (1 - beta1**self._step)) / scale


class _Progress:
    """Per-trial state: which trials improved, still run, or failed."""

    def __init__(self, n: int) -> None:
        self.curve: list[NDArray[np.float64]] = []
        self.running = np.ones(n, dtype=bool)
        self.failed = np.zeros(n, dtype=bool)
        self.best_step = np.zeros(n, dtype=np.int64)
        self.last_step = np.zeros(n, dtype=np.int64)
        self._best = np.full(n, np.inf)
        self._anchor = np.full(n, np.inf)  # the best loss at the last change that counted, and when that was
        self._anchor_step = np.zeros(n, dtype=np.int64)

    def record(self, loss: NDArray[np.float64], settings: AdamSettings) -> NDArray[np.bool_]:
        """Take the losses of one evaluation; give the trials whose loss is the lowest so far."""
        if loss.shape != self.running.shape:
            raise ShapeError(
                f"the objective's loss has shape {loss.shape}: give one number per trial, {self.running.shape}"
            )
        step = len(self.curve)
        was_running = self.running
        self.curve.append(np.where(was_running, loss, np.nan))
        self.last_step[was_running] = step
        finite = np.isfinite(loss)
        self.failed |= was_running & ~finite
        better = was_running & finite & (loss < self._best)
        self._best = np.where(better, loss, self._best)
        self.best_step[better] = step
        known = np.where(np.isfinite(self._anchor), self._anchor, 0.0)
        enough = better & (np.isinf(self._anchor) | (loss < known - settings.min_change * np.abs(known)))
        self._anchor = np.where(enough, loss, self._anchor)
        self._anchor_step[enough] = step
        self.running = was_running & finite
        if settings.patience is not None:
            self.running = self.running & (step - self._anchor_step < settings.patience)
        return better
