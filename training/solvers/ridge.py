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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.environment import usable_cores
from ...runtime.errors import InputError, ShapeError
from ...runtime.progress import unheard
from .centred import Centred, Double, Products
from .columns import Columns
from .ranking import largest
from .single import Single
from .spd import MIN_MIXED, factorise, shifted, solve_factorised
from .target import TargetSolver
from .workers import run_jobs, shared_array, single_threaded_blas

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Progress = Callable[[int, int], None]

# Targets per job: fixed, so that results do not depend on the number of workers. More by a factor where systems are of
# at most so many voxels, as long as there are so many jobs; fewer by a factor where they are larger.
_TARGETS_PER_JOB = 128
_SMALL_SYSTEM, _SMALL_SYSTEMS_PER_JOB, _LARGE_SYSTEMS_FEWER, _JOBS_WANTED = 1024, 4, 8, 16
# Below this ratio of trials to voxels, the n_trials x n_trials system costs less (n^2 v + n^3/3 < v^3/3).
_DUAL_RATIO = 0.55
# Targets that decide whether products are in float32, and the share of them that may have to be solved again.
_N_TRIED, _FEW = 16, 0.125


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
        What weights and biases are stored in.

    Returns
    -------
    SparseRidge

    Raises
    ------
    ShapeError, InputError
        For arrays that do not fit together, NaN, or a system that `alpha` does not make solvable.

    Notes
    -----
    Equal to float64 within 1e-6 (absolute, for z-scored x and y) in every weight and bias, and in the root mean square
    of a target's predictions; the same voxels.

    Memory beyond the result: x in float64, and in float32 x and its n_voxels x n_voxels Gram matrix, which forked
    workers share with the caller; for each worker up to 512 targets with their correlations, and a system in float64
    and float32. Where trials are few or voxels nearly the same, another x in float64, or the Gram matrix in it.
    """
    return fit_ridge_path(
        x, y, n_selected=n_selected, alphas=[alpha], n_threads=n_threads, progress=progress, dtype=dtype
    )[0]


def fit_ridge_path(
    x: Array,
    y: Array | Columns,
    *,
    n_selected: int,
    alphas: Sequence[float],
    n_threads: int | None = None,
    progress: Progress | None = None,
    dtype: type[np.floating[Any]] = np.float64,
) -> list[SparseRidge]:
    """Fit as :func:`fit_ridge` for each of several penalties, with the same voxels.

    Voxels are ranked and their products computed once; each further penalty costs one factorisation per target.

    Raises
    ------
    ShapeError, InputError
        As :func:`fit_ridge`.
    """
    x, source = checked(x, y, n_selected, alphas, n_threads)
    n_voxels, n_targets = x.shape[1], source.shape[1]
    n_selected = min(n_selected, n_voxels)
    if n_selected == n_voxels:
        index = np.broadcast_to(np.arange(n_voxels, dtype=np.int32), (n_targets, n_voxels))
    else:
        index = shared_array((n_targets, n_selected), np.int32)
    results = [
        SparseRidge(index, shared_array((n_targets, n_selected), dtype), shared_array((n_targets,), dtype), n_voxels)
        for _ in alphas
    ]
    jobs = _jobs(n_targets, n_selected if n_selected < n_voxels else 0)
    done = 0

    def report(n_new: int) -> None:
        nonlocal done
        done += n_new
        (progress or unheard)(done, n_targets)

    if n_selected == n_voxels:
        run_jobs(_shared(x, source, alphas, results), jobs, 1, report)
        return results
    centred = Centred(x)
    if has_few_trials(x, n_selected):
        work = _selected_dual(centred, source, alphas, results)
    else:
        work = _selected(_products(centred, source, n_selected, min(alphas)), centred, source, alphas, results)
    with single_threaded_blas() as limited:
        run_jobs(work, jobs, (n_threads or usable_cores()) if limited else 1, report)
    return results


def _jobs(n_targets: int, n_selected: int) -> list[slice]:
    # Products with more targets at once pass over the responses less often; but each worker should have several jobs,
    # and progress and balance suffer where one takes minutes.
    least = _TARGETS_PER_JOB if n_selected <= _SMALL_SYSTEM else max(1, _TARGETS_PER_JOB // _LARGE_SYSTEMS_FEWER)
    most = _TARGETS_PER_JOB * _SMALL_SYSTEMS_PER_JOB if n_selected <= _SMALL_SYSTEM else least
    size = max(least, min(most, n_targets // _JOBS_WANTED // _TARGETS_PER_JOB * _TARGETS_PER_JOB))
    return [slice(start, min(start + size, n_targets)) for start in range(0, n_targets, size)]


def _few_are_rough(products: Products, centred: Centred, source: Columns, n_selected: int, alpha: float) -> bool:
    n_targets = source.shape[1]
    solver = TargetSolver(products, centred, n_selected, again=False)
    tried = np.unique(np.linspace(0, n_targets - 1, _N_TRIED if n_selected <= _SMALL_SYSTEM else 2).astype(int))
    y = np.hstack([read(source, slice(target, target + 1)) for target in tried])
    ranked = products.rank(y, n_selected)
    for target in range(len(tried)):
        list(solver.solve(y[:, target], ranked, target, [alpha]))
    return solver.n_rough <= _FEW * len(tried)


def _products(centred: Centred, source: Columns, n_selected: int, alpha: float) -> Products:
    """Products in float32 as far as a few targets bear it, so that few systems have to be solved again."""
    if n_selected < MIN_MIXED:
        return Double(centred)
    products = Single(centred)
    if not _few_are_rough(products, centred, source, n_selected, alpha):
        products = products.computed_in_double()
        if not _few_are_rough(products, centred, source, n_selected, alpha):
            del products  # before as much memory again is taken
            return Double(centred)
    return products


def has_few_trials(x: Array, n_selected: int) -> bool:
    """Whether the system of trials costs less than that of the selected voxels."""
    return len(x) < _DUAL_RATIO * n_selected


class _Whole:
    """An array in memory, as :class:`Columns`."""

    def __init__(self, y: Array) -> None:
        self._y = y

    @property
    def shape(self) -> tuple[int, int]:
        return self._y.shape[0], self._y.shape[1]

    def columns(self, start: int, stop: int) -> Float64:
        return np.asarray(self._y[:, start:stop], np.float64)


def checked(
    x: Array, y: Array | Columns, n_selected: int, alphas: Sequence[float], n_threads: int | None
) -> tuple[Float64, Columns]:
    """Responses in float64 and targets as columns, or a ShapeError or InputError."""
    if x.ndim != 2 or len(y.shape) != 2 or x.shape[0] != y.shape[0] or 0 in x.shape or 0 in y.shape:
        raise ShapeError(
            f"ridge got x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}: "
            "expected (n_trials, n_voxels) and (n_trials, n_targets) with the same, non-zero n_trials"
        )
    if n_selected < 1:
        raise InputError(f"n_selected is {n_selected}, expected at least 1 voxel per target")
    for alpha in alphas:
        if not (np.isfinite(alpha) and alpha >= 0):
            raise InputError(f"alpha is {alpha}, expected a finite penalty of at least 0")
    if n_threads is not None and n_threads < 1:
        raise InputError(f"n_threads is {n_threads}, expected at least 1")
    x = np.ascontiguousarray(x, np.float64)
    if not np.isfinite(x).all():
        raise InputError("the responses hold NaN or infinite values: remove those trials before fitting")
    return x, y if isinstance(y, Columns) else _Whole(y)


def read(source: Columns, part: slice) -> Float64:
    """Some targets, (n_trials, k); an InputError where they hold NaN."""
    y = source.columns(part.start, part.stop)
    if not np.isfinite(y).all():
        raise InputError(
            f"targets {part.start} to {part.stop - 1} hold NaN or infinite values: remove those trials before fitting"
        )
    return y


def _selected(
    products: Products, centred: Centred, source: Columns, alphas: Sequence[float], results: Sequence[SparseRidge]
) -> Callable[[slice], int]:
    n_selected = results[0].weight.shape[1]

    def work(part: slice) -> int:
        y = read(source, part)
        ranked = products.rank(y, n_selected)
        solver = TargetSolver(products, centred, n_selected)
        for target, chosen in enumerate(ranked.chosen):
            found = solver.solve(y[:, target], ranked, target, alphas)
            for result, (weight, bias) in zip(results, found, strict=True):
                result.weight[part.start + target], result.bias[part.start + target] = weight, bias
            results[0].index[part.start + target] = chosen
        return len(ranked.chosen)

    return work


def _selected_dual(
    centred: Centred, source: Columns, alphas: Sequence[float], results: Sequence[SparseRidge]
) -> Callable[[slice], int]:
    """Fewer trials than voxels: w = X'a, b = sum(a) with (XX' + 11' + alpha I) a = y."""
    n_selected = results[0].weight.shape[1]
    by_voxel = np.ascontiguousarray(centred.x.T)
    rest = centred.x - centred.mean

    def work(part: slice) -> int:
        y = read(source, part)
        covariance = (y - y.mean(axis=0)).T @ rest
        chosen = largest(np.abs(covariance) * centred.inverse_norm, n_selected)
        for target, voxels in enumerate(chosen):
            rows = by_voxel[voxels]
            kernel = rows.T @ rows + 1.0
            for result, alpha in zip(results, alphas, strict=True):
                dual = solve_factorised(factorise(shifted(kernel, alpha)), y[:, target])
                result.weight[part.start + target] = rows @ dual
                result.bias[part.start + target] = dual.sum()
        results[0].index[part] = chosen
        return len(chosen)

    return work


def _shared(
    x: Float64, source: Columns, alphas: Sequence[float], results: Sequence[SparseRidge]
) -> Callable[[slice], int]:
    """Every target uses every voxel: one factorisation per penalty, in whichever of the two spaces is smaller."""
    n_trials, n_voxels = x.shape
    primal = n_trials > n_voxels
    design = np.hstack([x, np.ones((n_trials, 1))])
    matrix = design.T @ design if primal else design @ design.T
    factors = [factorise(shifted(matrix, alpha)) for alpha in alphas]

    def work(part: slice) -> int:
        y = read(source, part)
        right = design.T @ y if primal else y
        for result, factor in zip(results, factors, strict=True):
            solution = solve_factorised(factor, right)
            if not primal:
                solution = design.T @ solution
            result.weight[part], result.bias[part] = solution[:-1].T, solution[-1]
        return int(y.shape[1])

    return work
