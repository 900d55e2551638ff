"""Whether voxels seem to be in the order of training: a test on each voxel's mean, where the means are informative."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.layout import voxels_of
from .scale import TrainingStatistics

# With so many voxels, the correlation of two unrelated patterns has a standard deviation of at most 0.1.
LEAST_VOXELS = 100
LEAST_CORRELATION = 0.3


def order_warning(responses: NDArray[Any], training: TrainingStatistics) -> str | None:
    """Compare the voxels' means over trials with those of training, by rank correlation across voxels.

    Only where means of training differ between voxels (within ROIs, where these are known) by more than one trial's
    standard deviation, from `LEAST_VOXELS` voxels on. Then the correlation of responses in the right order is at least
    0.7 even if all trials showed one picture, since the means' error is that of one trial at most; and it would
    take an error three times as large to bring it below `LEAST_CORRELATION` = 1 / sqrt(1 + 3^2). Of voxels in another
    order it lies around 0, and 0.3 is three standard deviations away. Means that hardly differ, as those of z-scored or
    detrended responses, say nothing about the order, and there is no warning.

    Parameters
    ----------
    responses : (n_trials, n_voxels)
        Good trials, 1 or more. Of other responses than fMRI nothing is said: the means of their channels and samples
        lie far below one trial's standard deviation.

    Returns
    -------
    A warning in one sentence, or None.
    """
    if training.mean.ndim > 1:
        return None
    varying = training.std > 0
    if int(varying.sum()) < LEAST_VOXELS:
        return None
    groups = _groups(training)[varying]
    trained = _within(training.mean[varying].astype(np.float64), groups)
    low, high = np.percentile(trained, (25, 75))
    if (high - low) / 1.349 < np.median(training.std[varying]):
        return None
    given = _within(responses[:, varying].mean(axis=0, dtype=np.float64), groups)
    found = _correlation(trained, given)
    if found >= LEAST_CORRELATION:
        return None
    return (
        f"the voxels' means have a rank correlation of {found:.2f} with those of the training responses, at least "
        f"{LEAST_CORRELATION:g} is expected: the voxels may be in another order than in training, or the responses "
        "were centred or z-scored and those of training were not"
    )


def _groups(training: TrainingStatistics) -> NDArray[np.intp]:
    """A number for each voxel, (n_voxels,): the same for voxels that lie in the same ROIs."""
    rois = (None if training.layout is None else training.layout.rois) or {}
    member = np.zeros((len(rois) + 1, len(training.mean)), bool)  # the last row for voxels without a ROI
    for row, roi in zip(member, rois.values(), strict=False):
        row[voxels_of(roi)] = True
    return np.unique(member, axis=1, return_inverse=True)[1].reshape(-1)


def _within(values: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Values less the median of their group: an order may be wrong within each ROI."""
    out = values.copy()
    for number in np.unique(groups):
        out[groups == number] -= np.median(values[groups == number])
    return out


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's, ties in the order that they come in."""
    first, second = (np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])
