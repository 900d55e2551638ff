"""What a ridge from every voxel predicts for other trials, without keeping weights of any target.

The system is the same for all targets: ``y_new = D_new (D'D + alpha I)^-1 D' y`` with D = [X, 1], the bias penalised
like a weight as in :func:`~.ridge.fit_ridge`. With fewer trials than voxels, and more targets than other trials, what
stands before y is one small matrix: of MEG with 27,000 values a trial it takes a fiftieth of the work of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError, ShapeError
from .ridge import checked
from .spd import factorise, shifted, solve_factorised

Array = NDArray[Any]
Float64 = NDArray[np.float64]


class Unselected:
    """A prepared ridge and the trials that it is to predict.

    Parameters
    ----------
    x : (n_trials, n_voxels)
        Normalised responses.
    x_new : (n_new, n_voxels)
        Of the other trials.
    alpha : float
        Penalty on the squared weights and on the squared bias.
    n_targets : int
        About how many targets there are: what pays is chosen by it, and nothing but rounding depends on it.

    Raises
    ------
    ShapeError, InputError
        As :func:`~.ridge.fit_ridge`.
    """

    def __init__(self, x: Array, x_new: Array, alpha: float, *, n_targets: int) -> None:
        x, _ = checked(x, np.zeros((len(x), 1)), x.shape[-1], [alpha], None)
        if x_new.ndim != 2 or x_new.shape[1] != x.shape[1]:
            raise ShapeError(
                f"new x is {x_new.shape}, expected (n_new, {x.shape[1]}): pass the voxels that were fitted"
            )
        self._n_trials = len(x)
        design, new = (np.hstack([rows, np.ones((len(rows), 1))]) for rows in (x, np.asarray(x_new, np.float64)))
        if len(x) > x.shape[1]:
            factor = factorise(shifted(design.T @ design, alpha))
            self._predict: Callable[[Float64], Float64] = lambda y: new @ solve_factorised(factor, design.T @ y)
            return
        factor = factorise(shifted(design @ design.T, alpha))
        if n_targets <= len(new):
            self._predict = lambda y: new @ (design.T @ solve_factorised(factor, y))
        else:
            self._predict = solve_factorised(factor, design @ new.T).T.__matmul__

    def predict(self, y: Float64) -> Float64:
        """Targets of the other trials, (n_new, n), from those of the fitted ones, (n_trials, n) and normalised.

        Raises
        ------
        ShapeError, InputError
            There are other trials, or NaN.
        """
        if y.ndim != 2 or len(y) != self._n_trials:
            raise ShapeError(f"targets are {y.shape}, expected ({self._n_trials}, n): one row for each fitted trial")
        if not np.isfinite(y).all():
            raise InputError("targets hold NaN or infinite values: remove those trials before fitting")
        return self._predict(np.asarray(y, np.float64))


def predict_path(x: Float64, x_new: Float64, y: Float64, alphas: Sequence[float]) -> Iterator[Float64]:
    """Predictions (n_new, n_targets) for each of several penalties, of finite arrays that fit together.

    The products of the trials are computed once, and each penalty costs one factorisation.
    """
    design, new = (np.hstack([rows, np.ones((len(rows), 1))]) for rows in (x, x_new))
    primal = len(x) > x.shape[1]
    matrix, left, right = (design.T @ design, new, design.T @ y) if primal else (design @ design.T, new @ design.T, y)
    for alpha in alphas:
        yield left @ solve_factorised(factorise(shifted(matrix, alpha)), right)
