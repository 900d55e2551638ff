"""Ridge from every value for several groups of targets, each with a penalty of its own, from one matrix of products.

What is wanted is predictions for other trials, not weights. Folds of the cross-validation take their products from
those of all trials, so that a group more costs little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import ShapeError
from .penalty import ALPHAS
from .spd import factorise, shifted, solve_factorised

Array = NDArray[Any]
Float64 = NDArray[np.float64]
# Targets of a group that decide its penalty, spread evenly.
_N_DECIDING = 64


def predict_groups(
    x: Array,
    groups: Mapping[str, Array],
    x_new: Array,
    fold: NDArray[np.integer[Any]],
    *,
    alphas: Sequence[float] = ALPHAS,
) -> tuple[dict[str, Float64], dict[str, float]]:
    """Predict each group's targets of new trials: ``x_new (X'X + alpha I)^-1 X'Y``.

    Parameters
    ----------
    x : (n_trials, n_values)
        Z-scored over these trials, so that there is no bias.
    groups
        Name -> (n_trials, n_targets) z-scored targets.
    x_new : (n_new, n_values)
    fold : (n_trials,) int
        Trials of one picture are in one fold. The penalty of a group is the one of `alphas` with the least squared
        error for held-out trials; of equal ones the largest.

    Returns
    -------
    Name -> (n_new, n_targets) predictions; name -> penalty.

    Raises
    ------
    ShapeError
        Trials or values do not fit together.
    InputError
        Values that do not vary, and a penalty of 0.
    """
    x, x_new = np.asarray(x, np.float64), np.asarray(x_new, np.float64)
    if x.ndim != 2 or x_new.ndim != 2 or x.shape[1] != x_new.shape[1] or any(len(y) != len(x) for y in groups.values()):
        shapes = ", ".join(str(np.shape(y)) for y in groups.values())
        raise ShapeError(f"ridge got x {x.shape}, new x {x_new.shape} and targets {shapes}: give one row per trial")
    targets = {name: np.asarray(y, np.float64) for name, y in groups.items()}
    primal = len(x) > x.shape[1]
    products = x.T @ x if primal else x @ x.T
    deciding = {name: y[:, :: -(-y.shape[1] // _N_DECIDING)] for name, y in targets.items()}
    errors = _errors(x, products, deciding, fold, alphas, primal=primal)
    chosen = {
        name: float(max(alpha for alpha, error in zip(alphas, found, strict=True) if error == found.min()))
        for name, found in errors.items()
    }
    factors = {alpha: factorise(shifted(products, alpha)) for alpha in set(chosen.values())}
    left = x_new if primal else x_new @ x.T
    predicted = {
        name: left @ solve_factorised(factors[chosen[name]], x.T @ y if primal else y) for name, y in targets.items()
    }
    return predicted, chosen


def _errors(
    x: Float64,
    products: Float64,
    targets: Mapping[str, Float64],
    fold: NDArray[np.integer[Any]],
    alphas: Sequence[float],
    *,
    primal: bool,
) -> dict[str, Float64]:
    """Squared errors of held-out trials for each penalty, (n_alphas,) per group."""
    spans = np.cumsum([0, *(y.shape[1] for y in targets.values())])
    y = np.concatenate(list(targets.values()), axis=1)
    errors = np.zeros((len(alphas), y.shape[1]))
    right = x.T @ y if primal else y
    for number in np.unique(fold):
        hidden = fold == number
        known = ~hidden
        if primal:
            matrix, left = products - x[hidden].T @ x[hidden], x[hidden]
            own = right - x[hidden].T @ y[hidden]
        else:
            matrix, left, own = products[np.ix_(known, known)], products[np.ix_(hidden, known)], y[known]
        for row, alpha in enumerate(alphas):
            found = left @ solve_factorised(factorise(shifted(matrix, alpha)), own)
            errors[row] += np.square(found - y[hidden]).sum(axis=0)
    return {name: errors[:, a:b].sum(axis=1) for name, a, b in zip(targets, spans[:-1], spans[1:], strict=True)}
