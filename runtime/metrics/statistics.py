"""Means over pictures, and paired comparison of two methods on the same pictures.

One rule everywhere: a picture counts once, however often it was shown. Its value is the mean of its trials', a mean is
taken over pictures, and the bootstrap draws pictures, since trials of one picture are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, ShapeError
from .base import Array, FloatArray, check_stimulus_ids

N_RESAMPLES = 10_000
_CHUNK = 2_000_000  # indices held at a time


@dataclass(frozen=True)
class PairedDifference:
    """Mean of (second - first) over pictures, with the interval's ends."""

    difference: float
    low: float
    high: float


def picture_means(values: Array, stimulus_ids: Sequence[str] | None = None) -> FloatArray:
    """The mean of each picture's trials, (n_pictures,) float64, in the order in which pictures first appear.

    Parameters
    ----------
    values
        (n,) one value per trial.
    stimulus_ids
        Of each trial, the same for trials that showed the same picture; None: each showed another one.
    """
    trials = np.asarray(values, dtype=np.float64)
    if stimulus_ids is None:
        return trials
    check_stimulus_ids(stimulus_ids, len(trials))
    number = {name: index for index, name in enumerate(dict.fromkeys(stimulus_ids))}
    which = np.array([number[name] for name in stimulus_ids], np.intp)
    means: FloatArray = np.bincount(which, weights=trials) / np.bincount(which)
    return means


def paired_bootstrap(
    first: Array,
    second: Array,
    rng: np.random.Generator,
    *,
    stimulus_ids: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
    level: float = 0.95,
) -> PairedDifference:
    """Percentile bootstrap interval of the mean paired difference (Efron 1979), resampling pictures.

    Each resample draws as many pictures as there are, with replacement, and takes both methods' values of all their
    trials, so what makes a picture easy or hard for both cancels. With one picture the interval has no width: it says
    nothing then.

    Parameters
    ----------
    first, second
        (n,) finite values of two methods on the same n >= 1 trials.
    rng
        Source of the resamples.
    stimulus_ids
        Of each trial, the same for trials that showed the same picture; None: each showed another one.
    n_resamples, level
        Number of resamples and coverage, in (0, 1).

    Raises
    ------
    ShapeError, InputError
        For unequal shapes, values that are not finite, or settings out of range.
    """
    if n_resamples < 1 or not 0 < level < 1:
        raise InputError(
            f"the bootstrap was given {n_resamples} resamples and the level {level}, "
            "expected at least 1 and a level between 0 and 1: correct them"
        )
    differences = picture_means(_differences(first, second), stimulus_ids)
    means = _resampled_means(differences, rng, n_resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return PairedDifference(float(differences.mean()), float(low), float(high))


def _differences(first: Array, second: Array) -> FloatArray:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ShapeError(f"paired values have shapes {a.shape} and {b.shape}, expected (n,): give the same trials")
    difference: FloatArray = b - a
    if not np.isfinite(difference).all():
        raise InputError("paired values hold NaN or infinite ones, expected finite ones: drop those trials from both")
    return difference


def _resampled_means(values: FloatArray, rng: np.random.Generator, n_resamples: int) -> FloatArray:
    means = np.empty(n_resamples)
    step = max(1, _CHUNK // len(values))
    for start in range(0, n_resamples, step):
        stop = min(start + step, n_resamples)
        means[start:stop] = values[rng.integers(len(values), size=(stop - start, len(values)))].mean(axis=1)
    return means
