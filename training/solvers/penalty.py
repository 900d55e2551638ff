"""The penalty of a ridge by cross-validation: one for a feature, from some of its targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError
from .columns import Columns
from .ridge import fit_ridge_path
from .unselected import predict_path

Array = NDArray[Any]
Float64 = NDArray[np.float64]

# The paper's 0.15, and up to 17 times as much as the 8,859 trials of an NSD subject weigh.
ALPHAS = tuple(0.15 * 10.0**power for power in range(7))
# Targets are looked at in so many runs of so many, spread evenly: neighbours are read together.
_RUNS, _RUN = 8, 16


def sampled(n_targets: int) -> list[tuple[int, int]]:
    """(start, stop) of the targets that decide."""
    if n_targets <= _RUNS * _RUN:
        return [(0, n_targets)]
    return [(int(start), int(start) + _RUN) for start in np.linspace(0, n_targets - _RUN, _RUNS)]


def choose_alpha(
    x: Array,
    y: Columns,
    fold: NDArray[np.integer[Any]],
    *,
    n_selected: int,
    alphas: Sequence[float] = ALPHAS,
    n_threads: int | None = None,
) -> float:
    """Choose the penalty of the least squared error for held-out trials.

    Each fold is predicted by weights that were fitted to the others alone: their voxels, and their statistics of
    responses and targets.

    Parameters
    ----------
    x : (n_trials, n_voxels)
    y : (n_trials, n_targets)
        The 128 targets of :func:`sampled` decide.
    fold : (n_trials,) int
        Trials of one picture are in one fold.

    Returns
    -------
    float
        One of `alphas`; of equal ones the largest.

    Raises
    ------
    ShapeError, InputError
        As :func:`~.ridge.fit_ridge`; no target varies.

    Notes
    -----
    Memory: one fold's responses in float64 besides what :func:`~.ridge.fit_ridge` needs. Time: of each fold one Gram
    matrix, and of each target one factorisation per penalty.
    """
    if not np.isfinite(x).all():
        raise InputError("the responses hold NaN or infinite values: remove those trials before fitting")
    values = np.concatenate([y.columns(*span) for span in sampled(y.shape[1])], axis=1)
    if not np.isfinite(values).all():
        raise InputError("targets hold NaN or infinite values: remove those trials before fitting")
    values = values[:, np.ptp(values, axis=0) > 0]
    if values.shape[1] == 0:
        raise InputError("alpha cannot be chosen by cross-validation: none of the targets varies")
    error = np.zeros(len(alphas))
    for number in np.unique(fold):
        known = fold != number
        x_known, x_hidden = _standardised(x, known)
        y_known, y_hidden = _standardised(values, known)
        if n_selected >= x.shape[1]:
            found: Iterable[Float64] = predict_path(x_known, x_hidden, y_known, alphas)
        else:
            path = fit_ridge_path(x_known, y_known, n_selected=n_selected, alphas=alphas, n_threads=n_threads)
            found = (fitted.predict(x_hidden) for fitted in path)
        error += [np.square(predicted - y_hidden).sum() for predicted in found]
    return float(max(alpha for alpha, of_it in zip(alphas, error, strict=True) if of_it == error.min()))


def _standardised(values: Array, known: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """Known and other rows by the statistics of the known ones; what does not vary in these is 0."""
    inside, outside = (np.asarray(values[rows], np.float64) for rows in (known, ~known))
    mean, std = inside.mean(axis=0), inside.std(axis=0)
    inverse = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
    for rows in (inside, outside):
        rows -= mean
        rows *= inverse
    return inside, outside
