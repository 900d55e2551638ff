"""What stage 2 adds in per cent of stage 1's mean, compared between two cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...runtime.metrics.statistics import N_RESAMPLES, PairedDifference

Float64 = NDArray[np.float64]
Side = tuple[Float64, Float64, int]

# No picture's metrics make such a gain; it stands for that over a mean of stage 1 that is 0 in a resample.
_MOST = 1e6
_CHUNK = 2_000_000  # indices held at a time


def gain_difference(
    first: Side, second: Side, rng: np.random.Generator, *, paired: bool, n_resamples: int = N_RESAMPLES
) -> PairedDifference:
    """Second gain minus first, with the percentile interval (95 %) of a bootstrap over pictures.

    Each resample draws pictures, and takes both stages' means of them. So the interval knows that stage 1's mean, which
    the gain is a share of, is uncertain as well.

    Parameters
    ----------
    first, second
        Stage 1 and stage 2 by picture, (n,) each, and 1 where more is better, -1 where less is.
    rng
        Source of the resamples.
    paired
        Whether both sides have the same pictures in the same order; else each draws its own.
    """
    sides = (first, second)
    whole = [_gain(before.mean(keepdims=True), after.mean(keepdims=True), sign) for before, after, sign in sides]
    parts = []
    step = max(1, _CHUNK // max(len(before) for before, _, _ in sides))
    for start in range(0, n_resamples, step):
        n = min(step, n_resamples - start)
        drawn = [rng.integers(len(before), size=(n, len(before))) for before, _, _ in sides[: 1 if paired else 2]]
        gains = [
            _gain(before[rows].mean(axis=1), after[rows].mean(axis=1), sign)
            for (before, after, sign), rows in zip(sides, (drawn[0], drawn[-1]), strict=True)
        ]
        parts.append(gains[1] - gains[0])
    low, high = np.quantile(np.concatenate(parts), [0.025, 0.975])
    return PairedDifference(float(whole[1][0] - whole[0][0]), float(low), float(high))


def _gain(before: Float64, after: Float64, sign: int) -> Float64:
    """Per cent, (n,)."""
    apart = sign * (after - before)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain: Float64 = np.where(apart == 0, 0.0, np.clip(100 * apart / np.abs(before), -_MOST, _MOST))
    return gain
