"""What a ridge from every voxel predicts for other trials, without its weights.

The weights of a target are as many as there are voxels; what they give for other trials is a linear map of the target's
values in the trials that were fitted, the same for all targets: ``y_new = D_new (D'D + alpha I)^-1 D' y`` with
D = [X, 1], the bias penalised like a weight as in :func:`~.ridge.fit_ridge`. With 27,000 values of an MEG trial that
takes a fiftieth of the work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import ShapeError
from .columns import Columns
from .ridge import checked, read
from .spd import factorise, solve_factorised

Array = NDArray[Any]
Float64 = NDArray[np.float64]


class Unselected:
    """The map from targets in the fitted trials to predictions for others.

    Parameters
    ----------
    x : (n_trials, n_voxels)
        Normalised responses.
    x_new : (n_new, n_voxels)
        Of the other trials.
    y : (n_trials, n_targets), or :class:`Columns`
        Normalised targets.
    alpha : float
        Penalty on the squared weights and on the squared bias.

    Raises
    ------
    ShapeError, InputError
        As :func:`~.ridge.fit_ridge`.
    """

    def __init__(self, x: Array, x_new: Array, y: Array | Columns, alpha: float) -> None:
        x, self._targets = checked(x, y, x.shape[-1], [alpha], None)
        if x_new.ndim != 2 or x_new.shape[1] != x.shape[1]:
            raise ShapeError(
                f"new x is {x_new.shape}, expected (n_new, {x.shape[1]}): pass the voxels that were fitted"
            )
        design, new = (np.hstack([rows, np.ones((len(rows), 1))]) for rows in (x, np.asarray(x_new, np.float64)))
        if len(x) > x.shape[1]:
            self._map: Float64 = solve_factorised(_factor(design.T @ design, alpha), new.T).T @ design.T
        else:
            self._map = solve_factorised(_factor(design @ design.T, alpha), design @ new.T).T

    def predict(self, start: int, stop: int) -> Float64:
        """Targets start..stop-1 of the other trials, (n_new, stop - start).

        Raises
        ------
        InputError
            They hold NaN.
        """
        found: Float64 = self._map @ read(self._targets, slice(start, stop))
        return found


def _factor(matrix: Float64, alpha: float) -> Float64:
    matrix[np.diag_indices_from(matrix)] += alpha
    return factorise(matrix)
