"""Stage 2: one loop, whatever the generator and however its gradients come. numpy and torch alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from ..generators.base import A
from .settings import RefineSettings

Params = dict[str, Any]  # name -> array with one row per trial, all numpy or all torch


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


@dataclass(frozen=True, eq=False)
class Refined(Generic[A]):
    """What a refinement found.

    Parameters
    ----------
    params : dict of arrays
        The best iterate of each trial: the parameters at its lowest loss.
    image : array of shape (n, 3, H, W)
        The picture that belongs to `params`.
    loss_curve : float64 array of shape (n_evaluations, n)
        Row k is the loss after k updates: row 0 is stage 1, and ``steps`` updates make ``steps + 1`` rows. There are
        fewer when every trial stopped early. NaN in the rows after a trial's stop.
    best_step : int64 array of shape (n,)
        Number of updates after which each trial was best; 0 where refinement did not help.
    last_step : int64 array of shape (n,)
        Number of updates made to each trial.
    failed : bool array of shape (n,)
        The loss became NaN or infinite; `params` and `image` are the best before that (the start, if at once).
    """

    params: dict[str, A]
    image: A
    loss_curve: NDArray[np.float64]
    best_step: NDArray[np.int64]
    last_step: NDArray[np.int64]
    failed: NDArray[np.bool_]


def refine(
    objective: Objective[A],
    params: Mapping[str, A],
    settings: RefineSettings,
    on_step: Callable[[int, NDArray[np.float64]], None] | None = None,
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
    settings : RefineSettings
        `steps`, `learning_rate`, `decay`, `patience` and `min_change` act here; the others on the objective.
    on_step : callable, optional
        Called after evaluation k = 0 ... steps with k and the losses, (n,) float64.
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
    current: Params = {name: _copy(array) for name, array in params.items()}
    n = len(next(iter(current.values())))
    progress = _Progress(n)
    adam = Adam()
    best_params: Params = {}
    best_image: Any = None
    for step in range(settings.steps + 1):
        loss, gradients, image = objective.value_and_gradient(current)
        better = progress.record(_numpy(loss), settings)
        if best_image is None:
            best_params, best_image = {name: _copy(array) for name, array in current.items()}, _copy(image)
        else:
            _assign(best_image, image, better)
            for name, array in current.items():
                _assign(best_params[name], array, better)
        if on_step is not None:
            on_step(step, progress.curve[-1].copy())
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
                self._first[name], self._second[name] = _zeros(gradient), _zeros(gradient)
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

    def record(self, loss: NDArray[np.float64], settings: RefineSettings) -> NDArray[np.bool_]:
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


def _is_torch(array: Any) -> bool:
    return hasattr(array, "detach")


def _copy(array: Any) -> Any:
    return array.detach().clone() if _is_torch(array) else np.array(array)


def _zeros(array: Any) -> Any:
    return array.new_zeros(array.shape) if _is_torch(array) else np.zeros_like(array)


def _assign(kept: Any, new: Any, trials: NDArray[np.bool_]) -> None:
    rows = np.flatnonzero(trials).tolist()  # a list of rows is an index that numpy and every torch device take
    if rows:
        kept[rows] = new[rows].detach() if _is_torch(new) else new[rows]


def _numpy(loss: Any) -> NDArray[np.float64]:
    return np.asarray(loss.detach().cpu().double() if _is_torch(loss) else loss, dtype=np.float64)
