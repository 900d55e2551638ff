"""Where the thing is: its place, its size and its outline, by the masks of a locator.

PixCorr and SSIM follow the background of a picture at least as much as the thing in it; these follow the thing alone.
"""

from __future__ import annotations

import numpy as np

from .base import Array, FloatArray, Metric
from .masks import centres, check_masks, radii

# Between opposite corners: no two centres are farther apart.
FARTHEST = float(np.sqrt(2))
MOST_TIMES = 4.0


def place(true_masks: Array, predicted_masks: Array) -> FloatArray:
    """Distance of the two masks' centres of mass, in picture widths.

    Parameters
    ----------
    true_masks, predicted_masks
        (n, H, W) bool.

    Returns
    -------
    (n,) float64 from 0 to the square root of 2, which also stands where one of the masks is empty: what is not found
    counts as being as far away as can be.

    Raises
    ------
    ShapeError
        For another rank or type, or unequal shapes.
    """
    check_masks(true_masks, predicted_masks)
    apart = np.linalg.norm(centres(true_masks) - centres(predicted_masks), axis=1)
    distance: FloatArray = np.where(np.isnan(apart), FARTHEST, apart)
    return distance


def size(true_masks: Array, predicted_masks: Array) -> FloatArray:
    """Absolute natural logarithm of the ratio of the two masks' sizes: 0.1 is some 10 % too large or too small.

    The size is the root mean square distance of a mask's points from their centre. Arguments and errors are those of
    :func:`place`.

    Returns
    -------
    (n,) float64 from 0 to log 4. Four times too large or too small is as wrong as this metric says, so that one
    speck does not outweigh all other pictures, and what is not found (an empty mask) counts as that.
    """
    check_masks(true_masks, predicted_masks)
    ratio = np.abs(np.log(radii(predicted_masks) / radii(true_masks)))
    bounded: FloatArray = np.where(np.isnan(ratio), np.log(MOST_TIMES), np.minimum(ratio, np.log(MOST_TIMES)))
    return bounded


def overlap(true_masks: Array, predicted_masks: Array) -> FloatArray:
    """Intersection over union of the two masks (Jaccard 1901). Arguments and errors are those of :func:`place`.

    Returns
    -------
    (n,) float64 from 0 to 1; 0 where nothing is found in either picture.
    """
    check_masks(true_masks, predicted_masks)
    shared = (true_masks & predicted_masks).sum(axis=(1, 2))
    both = (true_masks | predicted_masks).sum(axis=(1, 2))
    share: FloatArray = shared / np.maximum(both, 1)
    return share


PLACE = Metric(
    name="place",
    label="Place error",
    meaning=(
        "Distance between the middle of the object and where it was shown, in picture widths, by a separately trained "
        "locator."
    ),
    needs="locator",
    function=place,
    better="lower",
    range=(0, FARTHEST),
)
SIZE = Metric(
    name="size",
    label="Size error",
    meaning="How much too large or too small the object is: 0.1 is some 10 %. By the locator.",
    needs="locator",
    function=size,
    better="lower",
    range=(0, float(np.log(MOST_TIMES))),
)
OVERLAP = Metric(
    name="overlap",
    label="Overlap",
    meaning="Pixels that the object covers in both pictures, as a share of those it covers in either. By the locator.",
    needs="locator",
    function=overlap,
    range=(0, 1),
)
