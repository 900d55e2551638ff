"""Resampled means of several kinds of picture at once, over pictures, and over seeds and pictures.

Kinds are always resampled together, so that a difference between two of them is a paired one. So are the runs of a
group that have a picture: what makes it easy or hard is the same in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..metrics.statistics import N_RESAMPLES

Float64 = NDArray[np.float64]
# Values held at a time.
_CHUNK = 4_000_000


def over_pictures(values: Float64, seed: int, n_resamples: int = N_RESAMPLES) -> Float64:
    """Means (n_kinds, n_resamples) of `values` (n_kinds, n_pictures), pictures drawn with replacement.

    The draws are those of :func:`~minddiffuser.runtime.metrics.compare.differences` with a generator of this seed, so
    that intervals of one run are the same in summary.json and in evidence.json.
    """
    rng = np.random.default_rng(int(np.random.default_rng(seed).integers(2**63)))
    n_kinds, n = values.shape
    means = np.empty((n_kinds, n_resamples))
    step = max(1, _CHUNK // (n * n_kinds))
    for start in range(0, n_resamples, step):
        stop = min(start + step, n_resamples)
        means[:, start:stop] = values[:, rng.integers(n, size=(stop - start, n))].mean(axis=2)
    return means


def aligned(runs: Sequence[tuple[Sequence[str], Float64]]) -> Float64:
    """The values of several runs (n_runs, n_kinds, n_pictures) in one order of all their pictures.

    Parameters
    ----------
    runs : of each its pictures' ids, and its values (n_kinds, n_pictures of the run)

    Returns
    -------
    Pictures in the order in which they first appear; NaN where a run lacks one.
    """
    place = {name: number for number, name in enumerate(dict.fromkeys(name for names, _ in runs for name in names))}
    every = np.full((len(runs), runs[0][1].shape[0], len(place)), np.nan)
    for number, (names, values) in enumerate(runs):
        every[number][:, [place[name] for name in names]] = values
    return every


def of_runs(every: Float64, seed: int, n_resamples: int = N_RESAMPLES) -> Float64:
    """Means over runs (n_kinds, n_resamples) where the runs stay and pictures are drawn.

    Parameters
    ----------
    every : (n_runs, n_kinds, n_pictures)
        Of :func:`aligned`. A picture is drawn for all runs that have it at once.
    """
    if not np.isnan(every).any():
        return over_pictures(every.mean(axis=0), seed, n_resamples)
    n_runs = len(every)
    return _crossed(every, np.full((n_resamples, n_runs), 1 / n_runs), np.random.default_rng([seed, n_runs]))


def over_seeds(every: Float64, seed: int, n_resamples: int = N_RESAMPLES) -> Float64:
    """Means over runs (n_kinds, n_resamples) where both runs and pictures are drawn with replacement.

    Pictures are crossed with the runs, not nested in them: each resample draws runs and draws pictures, and takes every
    drawn picture of every drawn run that has it (Owen, 2007). To draw pictures anew for each run would count one
    picture that is easy for all of them as several. Where no two runs have a picture in common, this draws pictures
    within each run.

    Parameters
    ----------
    every
        As of :func:`of_runs`.
    """
    n_runs = len(every)
    rng = np.random.default_rng([seed, n_runs])
    weights = np.zeros((n_resamples, n_runs))
    chosen = rng.integers(n_runs, size=(n_resamples, n_runs))
    np.add.at(weights, (np.arange(n_resamples)[:, None], chosen), 1 / n_runs)
    return _crossed(every, weights, rng)


def _crossed(every: Float64, weights: Float64, rng: np.random.Generator) -> Float64:
    """Weighted means over runs, (n_resamples, n_runs) of weights, of each run's mean over the drawn pictures it has."""
    n_runs, n_kinds, n = every.shape
    has: NDArray[np.bool_] = np.logical_not(np.isnan(every).any(axis=1))  # (n_runs, n)
    values = np.nan_to_num(every).reshape(n_runs * n_kinds, n)
    means = np.empty((n_kinds, len(weights)))
    step = max(1, _CHUNK // (n + n_kinds * n_runs))
    for start in range(0, len(weights), step):
        rows = slice(start, min(start + step, len(weights)))
        times = _times_drawn(has, len(weights[rows]), rng)
        of_each = (values @ times.T).reshape(n_runs, n_kinds, -1) / (has @ times.T)[:, None]
        means[:, rows] = np.einsum("rkb,br->kb", of_each, weights[rows])
    return means


def _times_drawn(has: NDArray[np.bool_], n_rows: int, rng: np.random.Generator) -> Float64:
    """How often each picture is drawn, (n_rows, n_pictures); a draw that leaves a run without one is made again."""
    n = has.shape[1]
    times = np.empty((n_rows, n))
    rows = np.arange(n_rows)
    while len(rows):
        drawn = rng.integers(n, size=(len(rows), n)) + n * np.arange(len(rows))[:, None]
        times[rows] = np.bincount(drawn.ravel(), minlength=n * len(rows)).reshape(-1, n)
        rows = rows[(times[rows] @ has.T == 0).any(axis=1)]
    return times
