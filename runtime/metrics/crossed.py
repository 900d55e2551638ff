"""A metric's value of each picture if it were a reconstruction of another stimulus: what permutations of pairs need."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from . import pixcorr, ssim
from .base import Array, FloatArray, Metric
from .distance import correlation_distance, correlation_distance_crossed
from .identification import two_way, two_way_crossed

Index = NDArray[np.intp]
Groups = Sequence[Index]
# A metric's function -> ``crossed(truth, prediction) -> (k, l)``: what the function gives for prediction j if it
# belonged to truth i, faster than pair by pair. For images both are lists of (3, H, W); where a value depends on other
# stimuli, the truths are those of all different ones, one each.
FASTER: dict[Callable[..., FloatArray], Callable[..., FloatArray]] = {
    **pixcorr.CROSSED,
    **ssim.CROSSED,
    two_way: two_way_crossed,
    correlation_distance: correlation_distance_crossed,
}
# Rows of features compared at a time, in numbers: a thousand pictures' would not fit as a thousand times a thousand.
_CHUNK = 50_000_000


def cross_features(metric: Metric, truth: Array, found: Array, which: Index, groups: Groups) -> list[FloatArray]:
    """Cross the pictures and stimuli of each group, by their features.

    Parameters
    ----------
    metric
        One that compares features.
    truth
        Of n stimuli, one row each.
    found
        Of m >= n pictures, one row each.
    which
        (m,) the stimulus of each picture; every stimulus has one.
    groups
        Stimuli that exchange their pictures; every stimulus is in one.

    Returns
    -------
    Of each group of k stimuli, (k, k) float64: at [i, j] the mean value of the j-th stimulus's pictures if they were of
    the i-th.
    """
    faster = FASTER.get(metric.function)
    if metric.compares_pictures and faster is None:
        return _by_rotation(metric, truth, found, which, groups)
    if metric.compares_pictures and faster is not None:  # needs all stimuli, whatever the groups
        means = mean_columns(faster(truth, found), which, len(truth))
        return [means[np.ix_(group, group)] for group in groups]
    return [_of_group(metric, truth, found, which, group) for group in groups]


def cross_pairs(metric: Metric, truth: Sequence[Array], found: Sequence[Array]) -> FloatArray:
    """Every truth with every prediction, (k, l) float64, of a metric whose value depends on nothing else.

    Parameters
    ----------
    truth, found
        Rows of features; or pictures (3, H, W), of any sizes.
    """
    faster = FASTER.get(metric.function)
    if faster is not None:
        return np.asarray(faster(truth, found), np.float64)
    return np.array([[metric(one[None], other[None], ())[0] for other in found] for one in truth])


def mean_columns(values: FloatArray, which: Index, n: int) -> FloatArray:
    """The means of columns that belong together, (rows, n)."""
    sums = np.zeros((len(values), n))
    np.add.at(sums.T, which, values.T)
    return sums / np.bincount(which, minlength=n)


def _of_group(metric: Metric, truth: Array, found: Array, which: Index, group: Index) -> FloatArray:
    place = np.full(len(truth), -1)
    place[group] = np.arange(len(group))
    of_group = np.flatnonzero(place[which] >= 0)
    one, other = truth[group], found[of_group]
    faster = FASTER.get(metric.function)
    if faster is not None:
        values = np.asarray(faster(one, other), np.float64)
    else:
        step = max(1, _CHUNK // max(1, one[0].size * len(other)))
        parts = []
        for start in range(0, len(one), step):
            some = one[start : start + step]
            pairs = np.repeat(some, len(other), axis=0), np.concatenate([other] * len(some))
            parts.append(metric(*pairs, ()).reshape(len(some), len(other)))
        values = np.concatenate(parts)
    return mean_columns(values, place[which[of_group]], len(group))


def _by_rotation(metric: Metric, truth: Array, found: Array, which: Index, groups: Groups) -> list[FloatArray]:
    """Every picture of a group gets the next stimulus but s, for each s; all others are its competitors each time."""
    crossed = [np.empty((len(group), len(group))) for group in groups]
    for shift in range(max(map(len, groups))):
        assigned = np.arange(len(truth))
        for group in groups:
            if shift < len(group):
                assigned[group] = np.roll(group, -shift)
        stimulus = assigned[which]
        values = metric(truth[stimulus], found, [str(index) for index in stimulus])
        means = mean_columns(values[None], which, len(truth))[0]
        for group, matrix in zip(groups, crossed, strict=True):
            if shift < len(group):
                columns = np.arange(len(group))
                matrix[(columns + shift) % len(group), columns] = means[group]
    return crossed
