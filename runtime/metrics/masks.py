"""Masks of things in pictures: where their centre is, and how far they reach."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from .base import Array, FloatArray

# Of the positions inside one pixel about its middle, in each direction, in pixels squared.
_PIXEL_VARIANCE = 1 / 12


def centres(masks: NDArray[np.bool_]) -> FloatArray:
    """Centre of mass of each mask, (n, 2): x and y in picture widths from the upper left; NaN where a mask is empty."""
    across, down = _moments(masks)
    return np.stack([across[0], down[0]], axis=1)


def radii(masks: NDArray[np.bool_]) -> FloatArray:
    """Root mean square distance of each mask's points from its centre, (n,), in picture widths; NaN where it is empty.

    A pixel is a square of points, so one alone has a radius of 0.41 pixels. Of all measures of size that need no names
    of things, this one differs least between a thin and a full shape of the same extent.
    """
    (_, across), (_, down) = _moments(masks)
    radius: FloatArray = np.sqrt(across + down)
    return radius


def _moments(masks: NDArray[np.bool_]) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    """Mean and variance across, and down, in picture widths."""
    width = masks.shape[2]
    found = []
    for axis in (1, 2):  # summed over rows, then over columns
        counts = masks.sum(axis=axis, dtype=np.float64)
        place = np.arange(counts.shape[1]) + 0.5
        total = np.where(counts.sum(1) > 0, counts.sum(1), np.nan)
        mean = counts @ place / total
        variance = (counts * (place - mean[:, None]) ** 2).sum(1) / total + _PIXEL_VARIANCE
        found.append((mean / width, variance / width**2))
    return found[0], found[1]


def check_masks(true_masks: Array, predicted_masks: Array) -> None:
    """Refuse anything but two boolean arrays of one shape (n, H, W), none 0."""
    for what, masks in (("true_masks", true_masks), ("predicted_masks", predicted_masks)):
        if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_:
            given = getattr(masks, "dtype", type(masks).__name__)
            raise ShapeError(f"{what} are {given}, expected a boolean numpy array: threshold them first")
        if masks.ndim != 3 or 0 in masks.shape:
            raise ShapeError(f"{what} have shape {masks.shape}, expected (n, H, W), none 0: give one mask per trial")
    if true_masks.shape != predicted_masks.shape:
        raise ShapeError(
            f"true_masks have shape {true_masks.shape}, predicted_masks {predicted_masks.shape}, expected the same: "
            "give both for each trial, at one resolution"
        )
