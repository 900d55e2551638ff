"""Responses split into mean and rest, and the products that a voxel-selected ridge is made of, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from .ranking import Indices, largest

Float64 = NDArray[np.float64]

# FastL2LiR gives a voxel of smaller variance the correlation 0.
_MIN_VARIANCE = 1e-8
# Trials centred at once.
_ROWS = 1024


class Centred:
    """Responses x (n_trials, n_voxels) with what ranks the voxels.

    Attributes
    ----------
    mean, norm : (n_voxels,)
        Of each voxel: its mean, and the length of what is left of it without the mean.
    inverse_norm : (n_voxels,)
        0 for a voxel that does not vary, which correlates with nothing.
    """

    def __init__(self, x: Float64) -> None:
        self.x = x
        self.mean = x.mean(axis=0)
        square = np.zeros(x.shape[1])
        for rows in self.blocks():
            square += np.einsum("tv,tv->v", rows, rows)
        self.norm = np.sqrt(square)
        usable = square >= _MIN_VARIANCE * len(x)
        self.inverse_norm = np.divide(1.0, self.norm, out=np.zeros_like(self.norm), where=usable)

    def blocks(self) -> Iterator[Float64]:
        """Centred responses of some trials after another, (k, n_voxels)."""
        for start in range(0, len(self.x), _ROWS):
            yield self.x[start : start + _ROWS] - self.mean

    def columns(self, voxels: Indices | slice) -> Float64:
        """Centred responses of some voxels, (n_trials, k), a copy."""
        columns: Float64 = self.x[:, voxels] - self.mean[voxels]
        return columns

    def kappa(self, alpha: float) -> float:
        """What eliminating the penalised bias adds to the Gram matrix, per product of means."""
        return len(self.x) * alpha / (len(self.x) + alpha)


@dataclass(frozen=True)
class Ranked:
    """A job of k targets.

    Attributes
    ----------
    chosen : (k, n_selected), ascending
    product : (k, n_selected)
        Of the centred target with each chosen voxel, as scaled.
    mean : (k,)
    norm : (k,)
        The length of each centred target.
    loss : (k,)
        The root mean square of what float32 lost of `product`; 0 in float64.
    """

    chosen: Indices
    product: Float64
    mean: Float64
    norm: Float64
    loss: Float64


class Products(Protocol):
    """Products of voxels with each other and with targets, each voxel multiplied by its `scale`.

    Attributes
    ----------
    gram : (n_voxels, n_voxels) float64 or float32
        At least the upper triangle is filled; the diagonal is not used.
    square, mean, scale : (n_voxels,)
        The diagonal of `gram` in float64; the mean, scaled; what responses are multiplied by.
    loss : (n_voxels,)
        Of each row of `gram`, what float32 lost of an entry (root mean square); 0 in float64.
    """

    gram: NDArray[Any]
    square: Float64
    mean: Float64
    scale: Float64
    loss: Float64

    def rank(self, y: Float64, n_selected: int) -> Ranked:
        """Choose voxels for targets (n_trials, k)."""
        ...


class Double:
    """:class:`Products` in float64, unscaled."""

    def __init__(self, centred: Centred) -> None:
        self._centred = centred
        self.mean, self.square, self.scale = centred.mean, centred.norm**2, np.ones_like(centred.mean)
        self.loss = np.zeros_like(centred.mean)
        # LAPACK's lower triangle is the upper one of C order.
        self.gram: NDArray[Any] = blas.dsyrk(1.0, self._rest.T, lower=1).T

    @cached_property
    def _rest(self) -> Float64:
        rest: Float64 = self._centred.x - self._centred.mean
        return rest

    def rank(self, y: Float64, n_selected: int) -> Ranked:
        mean = y.mean(axis=0)
        rest = y - mean
        covariance = rest.T @ self._rest
        chosen = largest(np.abs(covariance) * self._centred.inverse_norm, n_selected)
        product, norm = np.take_along_axis(covariance, chosen, axis=1), np.sqrt(np.einsum("tk,tk->k", rest, rest))
        return Ranked(chosen, product, mean, norm, np.zeros_like(norm))
