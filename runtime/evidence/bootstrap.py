"""Resampled means of several kinds of picture at once, over pictures, and over seeds and pictures.

Kinds are always resampled together, so that a difference between two of them is a paired one.
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


def of_runs(runs: Sequence[Float64], seed: int, *, shared: bool, n_resamples: int = N_RESAMPLES) -> Float64:
    """Means over runs (n_kinds, n_resamples) where the runs stay and their pictures are drawn.

    Parameters
    ----------
    runs : of each (n_kinds, n_pictures)
    shared
        Whether all have the same pictures in the same order: a picture is then drawn for all of them at once.
    """
    if shared:
        return over_pictures(np.mean(runs, axis=0), seed, n_resamples)
    drawn = [over_pictures(values, _seed(seed, number), n_resamples) for number, values in enumerate(runs)]
    return np.asarray(np.mean(drawn, axis=0))


def over_seeds(runs: Sequence[Float64], seed: int, *, shared: bool, n_resamples: int = N_RESAMPLES) -> Float64:
    """Means over runs (n_kinds, n_resamples) where runs are drawn with replacement, and pictures within them.

    Where all runs have the same pictures these are crossed with the runs, not nested in them: each resample draws runs
    and draws pictures, and takes every drawn picture of every drawn run (Owen, 2007). To draw pictures anew for each
    run would count one picture that is easy for all of them as several. Elsewhere each drawn run has its own pictures
    drawn.

    Parameters
    ----------
    runs, shared
        As of :func:`of_runs`.
    """
    rng = np.random.default_rng([seed, len(runs)])
    chosen = rng.integers(len(runs), size=(n_resamples, len(runs)))
    if shared:
        every = np.stack(runs)  # (n_runs, n_kinds, n_pictures)
        return _crossed(every, chosen, rng)
    means = np.zeros((runs[0].shape[0], n_resamples))
    for place in range(len(runs)):
        for number, values in enumerate(runs):
            rows = np.flatnonzero(chosen[:, place] == number)  # each with a draw of its own
            if len(rows):
                means[:, rows] += over_pictures(values, _seed(seed, number, place), len(rows))
    return means / len(runs)


def _crossed(every: Float64, chosen: NDArray[np.integer], rng: np.random.Generator) -> Float64:
    n_runs, n_kinds, n = every.shape
    n_resamples = len(chosen)
    means = np.empty((n_kinds, n_resamples))
    weights = np.zeros((n_resamples, n_runs))
    np.add.at(weights, (np.arange(n_resamples)[:, None], chosen), 1 / n_runs)
    step = max(1, _CHUNK // (n * n_kinds * n_runs))
    for start in range(0, n_resamples, step):
        rows = slice(start, min(start + step, n_resamples))
        pictures = rng.integers(n, size=(len(weights[rows]), n))
        of_each = every[:, :, pictures].mean(axis=3)  # (n_runs, n_kinds, n_rows)
        means[:, rows] = np.einsum("skb,bs->kb", of_each, weights[rows])
    return means


def _seed(seed: int, *parts: int) -> int:
    return int(np.random.default_rng([seed, *parts]).integers(2**31))
