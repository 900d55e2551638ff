"""Ridge regression in which every target has its own voxels: the paper's solver, exact and batched.

For each target, the `n_selected` voxels that correlate most (in absolute value) with it on the training trials;
then, over these voxels and a column of ones, ``(X'X + alpha I) w = X'y``: the bias is penalised like a weight.
These are the semantics of FastL2LiR 0.11, which the reference code uses; inputs are z-scored by the caller.

Two identities make it fast. With X = centred + mean, the bias can be eliminated once for all targets:

    w: (Xc'Xc + kappa m m' + alpha I) w = Xc'yc + kappa m ybar,   kappa = n alpha / (n + alpha)
    b: (n + alpha) b = n (ybar - m'w)

and the same Xc'yc ranks the voxels. What is left per target is one Cholesky factorisation of a submatrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.environment import usable_cores
from ...runtime.errors import InputError, ShapeError
from ...runtime.progress import unheard
from .columns import Columns
from .spd import SubmatrixSolver, factorise, solve_factorised
from .workers import run_jobs, shared_array, single_threaded_blas

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Progress = Callable[[int, int], None]

# FastL2LiR gives a voxel of smaller variance the correlation 0.
_MIN_VARIANCE = 1e-8
# Targets per job. Fixed, so that results do not depend on the number of workers; small, so that each has several.
_TARGETS_PER_JOB = 128
# Below this ratio of trials to voxels, the n_trials x n_trials system costs less (n^2 v + n^3/3 < v^3/3).
_DUAL_RATIO = 0.55


@dataclass(frozen=True)
class SparseRidge:
    """A fitted solver: prediction[t] = sum_k x[index[t, k]] * weight[t, k] + bias[t].

    Attributes
    ----------
    index : (n_targets, n_selected) int32, ascending in each row
    weight : (n_targets, n_selected)
    bias : (n_targets,)
    """

    index: NDArray[np.int32]
    weight: Array
    bias: Array
    n_voxels: int

    def predict(self, x: Array, start: int = 0, stop: int | None = None) -> Float64:
        """Predict targets start..stop-1 from x (n_trials, n_voxels); returns (n_trials, stop - start) float64."""
        if x.ndim != 2 or x.shape[1] != self.n_voxels:
            raise ShapeError(f"x is {x.shape}, the ridge was fitted on (n_trials, {self.n_voxels}): pass those voxels")
        stop = len(self.bias) if stop is None else stop
        x = np.asarray(x, np.float64)
        out = np.empty((len(x), stop - start))
        for first in range(start, stop, _TARGETS_PER_JOB):
            part = slice(first, min(first + _TARGETS_PER_JOB, stop))
            dense = np.zeros((part.stop - first, self.n_voxels))
            np.put_along_axis(dense, self.index[part].astype(np.intp), self.weight[part].astype(np.float64), axis=1)
            out[:, first - start : part.stop - start] = x @ dense.T + self.bias[part]
        return out


def fit_ridge(
    x: Array,
    y: Array | Columns,
    *,
    n_selected: int,
    alpha: float,
    n_threads: int | None = None,
    progress: Progress | None = None,
    dtype: type[np.floating[Any]] = np.float64,
) -> SparseRidge:
    """Fit every target on its own `n_selected` best correlated voxels.

    Parameters
    ----------
    x : (n_trials, n_voxels)
        Normalised responses. A voxel of variance below 1e-8 has correlation 0.
    y : (n_trials, n_targets), or :class:`Columns`
        Normalised targets.
    n_selected : int
        Voxels per target, at most n_voxels (more is taken as all of them: then one factorisation serves every
        target). Equal correlations (of constant voxels, say) are resolved towards the lower voxel number.
    alpha : float
        Penalty on the squared weights and on the squared bias.
    n_threads : int, optional
        Processes on Linux, threads elsewhere; all usable CPUs when not given. The result does not depend on it.
    progress : callable, optional
        Receives (targets done, n_targets) in the calling thread.
    dtype : type
        What weights and biases are stored in; all arithmetic is equivalent to float64.

    Returns
    -------
    SparseRidge

    Raises
    ------
    ShapeError, InputError
        For arrays that do not fit together, NaN, or a system that `alpha` does not make solvable.

    Notes
    -----
    Memory beyond the result: x and its n_voxels x n_voxels Gram matrix in float64, and 128 targets per worker.
    A forked worker shares the two with the caller.
    """
    x, source = _checked(x, y, n_selected, alpha, n_threads)
    n_voxels, n_targets = x.shape[1], source.shape[1]
    n_selected = min(n_selected, n_voxels)
    if n_selected == n_voxels:
        index = np.broadcast_to(np.arange(n_voxels, dtype=np.int32), (n_targets, n_voxels))
    else:
        index = shared_array((n_targets, n_selected), np.int32)
    weight, bias = shared_array((n_targets, n_selected), dtype), shared_array((n_targets,), dtype)
    result = SparseRidge(index, weight, bias, n_voxels)
    starts = range(0, n_targets, _TARGETS_PER_JOB)
    jobs = [slice(start, min(start + _TARGETS_PER_JOB, n_targets)) for start in starts]
    done = 0

    def report(n_new: int) -> None:
        nonlocal done
        done += n_new
        (progress or unheard)(done, n_targets)

    if n_selected == n_voxels:
        run_jobs(_shared(x, source, alpha, result), jobs, 1, report)
        return result
    prepare = _selected_dual if len(x) < _DUAL_RATIO * n_selected else _selected
    centred = _Centred(x)
    work = prepare(centred, source, alpha, result)
    with single_threaded_blas() as limited:
        run_jobs(work, jobs, (n_threads or usable_cores()) if limited else 1, report)
    return result


class _Whole:
    """An array in memory, as :class:`Columns`."""

    def __init__(self, y: Array) -> None:
        self._y = y

    @property
    def shape(self) -> tuple[int, int]:
        return self._y.shape[0], self._y.shape[1]

    def columns(self, start: int, stop: int) -> Float64:
        return np.asarray(self._y[:, start:stop], np.float64)


def _checked(
    x: Array, y: Array | Columns, n_selected: int, alpha: float, n_threads: int | None
) -> tuple[Float64, Columns]:
    if x.ndim != 2 or len(y.shape) != 2 or x.shape[0] != y.shape[0] or 0 in x.shape or 0 in y.shape:
        raise ShapeError(
            f"ridge got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: "
            "expected (n_trials, n_voxels) and (n_trials, n_targets) with the same, non-zero n_trials"
        )
    if n_selected < 1:
        raise InputError(f"n_selected is {n_selected}, expected at least 1 voxel per target")
    if not (np.isfinite(alpha) and alpha >= 0):
        raise InputError(f"alpha is {alpha}, expected a finite penalty of at least 0")
    if n_threads is not None and n_threads < 1:
        raise InputError(f"n_threads is {n_threads}, expected at least 1")
    x = np.ascontiguousarray(x, np.float64)
    if not np.isfinite(x).all():
        raise InputError("the responses hold NaN or infinite values: remove those trials before fitting")
    return x, y if isinstance(y, Columns) else _Whole(y)


def _read(source: Columns, part: slice) -> Float64:
    y = source.columns(part.start, part.stop)
    if not np.isfinite(y).all():
        raise InputError(
            f"targets {part.start} to {part.stop - 1} hold NaN or infinite values: remove those trials before fitting"
        )
    return y


class _Centred:
    """Responses split into mean and rest, with what ranks the voxels."""

    def __init__(self, x: Float64) -> None:
        self.x = x
        self.mean = x.mean(axis=0)
        self.rest = x - self.mean
        norm = np.sqrt(np.einsum("tv,tv->v", self.rest, self.rest))
        usable = x.var(axis=0) >= _MIN_VARIANCE
        # |correlation| up to a factor that is the same for all voxels of a target.
        self.inverse_norm = np.divide(1.0, norm, out=np.zeros_like(norm), where=usable)

    def rank(self, y: Float64, n_selected: int) -> tuple[Float64, NDArray[np.intp]]:
        """Covariances (k, n_voxels) and the chosen voxels (k, n_selected), ascending."""
        covariance = (y - y.mean(axis=0)).T @ self.rest
        return covariance, largest(np.abs(covariance) * self.inverse_norm, n_selected)


def largest(score: Float64, n: int) -> NDArray[np.intp]:
    """Columns of the `n` largest values of each row, ascending; of equal values the lower column is taken."""
    chosen = np.argpartition(score, score.shape[1] - n, axis=1)[:, -n:]
    bar = np.take_along_axis(score, chosen, axis=1).min(axis=1)
    for row in np.flatnonzero((score >= bar[:, None]).sum(axis=1) > n):
        chosen[row] = np.argsort(-score[row], kind="stable")[:n]
    chosen.sort(axis=1)
    return chosen


def _selected(centred: _Centred, source: Columns, alpha: float, result: SparseRidge) -> Callable[[slice], int]:
    n_trials, n_selected, mean = len(centred.x), result.weight.shape[1], centred.mean
    kappa = n_trials * alpha / (n_trials + alpha)
    gram = centred.rest.T @ centred.rest
    gram += kappa * np.outer(mean, mean)
    gram[np.diag_indices_from(gram)] += alpha

    def work(part: slice) -> int:
        y = _read(source, part)
        y_mean = y.mean(axis=0)
        covariance, chosen = centred.rank(y, n_selected)
        right = np.take_along_axis(covariance, chosen, axis=1) + kappa * y_mean[:, None] * mean[chosen]
        solver = SubmatrixSolver(gram, n_selected)
        weight = np.empty((len(chosen), n_selected))
        for target in range(len(chosen)):
            weight[target] = solver.solve(chosen[target], right[target])
        result.index[part], result.weight[part] = chosen, weight
        result.bias[part] = n_trials * (y_mean - np.einsum("tk,tk->t", mean[chosen], weight)) / (n_trials + alpha)
        return len(chosen)

    return work


def _selected_dual(centred: _Centred, source: Columns, alpha: float, result: SparseRidge) -> Callable[[slice], int]:
    """Fewer trials than voxels: w = X'a, b = sum(a) with (XX' + 11' + alpha I) a = y."""
    n_selected = result.weight.shape[1]
    by_voxel = np.ascontiguousarray(centred.x.T)

    def work(part: slice) -> int:
        y = _read(source, part)
        chosen = centred.rank(y, n_selected)[1]
        for target, voxels in enumerate(chosen):
            rows = by_voxel[voxels]
            kernel = _kernel(rows.T, rows, alpha)
            dual = solve_factorised(factorise(kernel), y[:, target])
            result.weight[part.start + target] = rows @ dual
            result.bias[part.start + target] = dual.sum()
        result.index[part] = chosen
        return len(chosen)

    return work


def _kernel(left: Float64, right: Float64, alpha: float) -> Float64:
    kernel: Float64 = left @ right + 1.0
    kernel[np.diag_indices_from(kernel)] += alpha
    return kernel


def _shared(x: Float64, source: Columns, alpha: float, result: SparseRidge) -> Callable[[slice], int]:
    """Every target uses every voxel: one factorisation, in whichever of the two spaces is smaller."""
    n_trials, n_voxels = x.shape
    if n_trials > n_voxels:
        design = np.hstack([x, np.ones((n_trials, 1))])
        gram = design.T @ design
        gram[np.diag_indices_from(gram)] += alpha
        factor = factorise(gram)
    else:
        factor = factorise(_kernel(x, x.T, alpha))

    def work(part: slice) -> int:
        y = _read(source, part)
        if n_trials > n_voxels:
            solution = solve_factorised(factor, design.T @ y)
            result.weight[part], result.bias[part] = solution[:-1].T, solution[-1]
        else:
            dual = solve_factorised(factor, y)
            result.weight[part], result.bias[part] = (x.T @ dual).T, dual.sum(axis=0)
        return int(y.shape[1])

    return work
