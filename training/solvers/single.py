"""The products of a voxel-selected ridge in float32, with a measured loss: half the memory, twice the speed.

With many trials, nearly all of the work is the product of targets and voxels. In float32 that is wrong by some 1e-8
of a correlation, which moves predictions by less than 1e-6 unless trials are few or voxels nearly the same. So the
loss is measured, against float64 on some voxels of every target, and :class:`~.target.TargetSolver` sends an error of
that size through the target's own factors before it accepts the result. Which voxels are chosen never depends on
float32: scores too close for it are compared in float64.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .centred import Centred, Ranked
from .ranking import Indices, largest, largest_of_rough

Float64 = NDArray[np.float64]

# Voxels on which the loss is measured.
_N_PROBED = 32
_UNIT = 2.0**-24
# Voxels whose products with all others are computed at once in float64.
_BLOCK = 1024


class Single:
    """:class:`~.centred.Products` in float32, of voxels scaled to length 1."""

    def __init__(self, centred: Centred) -> None:
        self._centred = centred
        n_trials, n_voxels = centred.x.shape
        self._constant = np.flatnonzero(centred.inverse_norm == 0)
        # A voxel that does not vary may still be chosen, for want of others.
        self.scale = np.where(centred.inverse_norm > 0, centred.inverse_norm, 1 / np.sqrt(n_trials))
        self.mean, self.square = centred.mean * self.scale, (centred.norm * self.scale) ** 2
        self._unit = np.empty((n_trials, n_voxels), np.float32)
        start = 0
        for rows in centred.blocks():
            np.multiply(rows, self.scale, out=self._unit[start : start + len(rows)], casting="same_kind")
            start += len(rows)
        self._probed = np.linspace(0, n_voxels - 1, min(_N_PROBED, n_voxels)).astype(np.intp)
        self._probes = self._columns(self._probed)
        self._exact: Float64 | None = None
        self.gram: NDArray[Any] = self._unit.T @ self._unit
        self.loss = self._lost()

    def _lost(self) -> Float64:
        lost = self.gram[np.ix_(self._probed, self._probed)] - self._probes.T @ self._probes
        np.fill_diagonal(lost, 0.0)
        # Of voxels that are nearly the same, of which the probes may hold none, rounding alone loses more.
        largest_of_row = np.empty(len(self.gram))
        for start in range(0, len(self.gram), _BLOCK):
            rows = np.abs(self.gram[start : start + _BLOCK])
            rows[np.arange(len(rows)), np.arange(start, start + len(rows))] = 0.0
            largest_of_row[start : start + _BLOCK] = rows.max(axis=1)
        return np.sqrt(np.mean(lost**2) + (_UNIT * largest_of_row) ** 2)

    def _columns(self, voxels: Indices | slice) -> Float64:
        columns = self._centred.columns(voxels)
        columns *= self.scale[voxels]
        return columns

    def computed_in_double(self) -> Single:
        """The same with products computed in float64; of voxels with each other they are kept in float32, rounded."""
        other = copy(self)
        other._exact = exact = self._columns(slice(None))
        for start in range(0, exact.shape[1], _BLOCK):
            part = slice(start, start + _BLOCK)
            other.gram[part, start:] = exact[:, part].T @ exact[:, start:]
            other.gram[start:, part] = other.gram[part, start:].T
        other.loss = other._lost()
        return other

    def rank(self, y: Float64, n_selected: int) -> Ranked:
        mean = y.mean(axis=0)
        rest = y - mean
        norm = np.sqrt(np.einsum("tk,tk->k", rest, rest))
        rest *= np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
        correlation = rest.T @ self._exact if self._exact is not None else rest.astype(np.float32).T @ self._unit
        score = np.abs(correlation)
        score[:, self._constant] = 0.0
        if self._exact is not None:
            chosen, loss = largest(score, n_selected), np.zeros_like(norm)
        else:
            lost = correlation[:, self._probed] - rest.T @ self._probes
            chosen, loss = self._chosen(score, rest, n_selected), np.sqrt(np.mean(lost**2, axis=1)) * norm
        product = np.take_along_axis(correlation, chosen, axis=1) * norm[:, None]
        return Ranked(chosen, product, mean, norm, loss)

    def _chosen(self, score: NDArray[np.float32], rest: Float64, n_selected: int) -> Indices:
        # Rounding errors of a sum of n terms grow with the root of n (Higham and Mary 2019), not with n.
        margin = 2 * np.sqrt(len(rest)) * _UNIT
        chosen = np.empty((len(score), n_selected), np.intp)
        for target, scores in enumerate(score):
            # A constant target correlates with nothing, exactly.
            unsure = margin if rest[:, target].any() else 0.0
            chosen[target] = largest_of_rough(scores, n_selected, unsure, partial(self._score, rest[:, target]))
        return chosen

    def _score(self, unit_target: Float64, voxels: Indices) -> Float64:
        found: Float64 = np.abs(unit_target @ self._centred.columns(voxels)) * self._centred.inverse_norm[voxels]
        return found
