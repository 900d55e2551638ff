"""Sets of voxels: means with intervals over voxels, differences of sets, and what random sets of the same size have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float64 = NDArray[np.float64]
N_RESAMPLES, N_SETS = 2000, 1000
_AT_ONCE = 1 << 22


def resampled_means(values: Array, rng: np.random.Generator, n_resamples: int = N_RESAMPLES) -> Float64:
    """Means of voxels drawn with replacement, as many as there are: (n_resamples, k) of values (n_voxels, k)."""
    n = len(values)
    means = np.empty((n_resamples, values.shape[1]))
    step = max(1, _AT_ONCE // n)
    for start in range(0, n_resamples, step):
        rows = slice(start, min(start + step, n_resamples))
        counts = rng.multinomial(n, np.full(n, 1 / n), size=rows.stop - start)
        means[rows] = counts @ values / n
    return means


def interval(means: Float64) -> Float64:
    """The 95 % percentile interval of resampled means (n_resamples, ...): (2, ...)."""
    ends: Float64 = np.quantile(means, [0.025, 0.975], axis=0)
    return ends


def random_set_means(
    values: Array, subject: NDArray[np.integer[Any]], chosen: NDArray[np.bool_], rng: np.random.Generator
) -> Float64:
    """Means of sets of any voxels, as large as a given set in each subject, drawn without replacement.

    Parameters
    ----------
    values : (n_voxels, k)
    subject : (n_voxels,) int
        Whose voxel it is.
    chosen : (n_voxels,) bool
        The set whose size counts.

    Returns
    -------
    (1000, k)
    """
    total = np.zeros((N_SETS, values.shape[1]))
    for one in np.unique(subject):
        own = values[subject == one]
        size = int(chosen[subject == one].sum())
        step = max(1, _AT_ONCE // len(own))
        for start in range(0, N_SETS, step) if size else ():
            rows = slice(start, min(start + step, N_SETS))
            drawn = np.argsort(rng.random((rows.stop - start, len(own))), axis=1)[:, :size]
            mask = np.zeros((rows.stop - start, len(own)))
            np.put_along_axis(mask, drawn, 1.0, axis=1)
            total[rows] += mask @ own
    means: Float64 = total / chosen.sum()
    return means
