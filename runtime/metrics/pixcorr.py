"""Pixel correlation."""

from __future__ import annotations

import numpy as np

from .base import Array, FloatArray, Metric, check_pictures
from .resize import to_working_size

# Rounding leaves a flat picture a spread near 1e-16; one step of one pixel of an 8-bit picture is far above 1e-9.
_FLAT = 1e-9


def pixcorr(images: Array, reconstructions: Array) -> FloatArray:
    """Pearson correlation of all colour values of each picture with those of its reconstruction.

    Both are resized to 256 x 256 and then 425 x 425 (antialiased bilinear), as in the evaluation code of
    MindEye (Scotti et al. 2023). Where either picture is one flat colour value the correlation is undefined and
    counts as 0: a flat picture says nothing about the other.

    Parameters
    ----------
    images, reconstructions
        (n, 3, H, W) floating point in [0, 1]; the two may differ in H and W.

    Returns
    -------
    (n,) float64 in [-1, 1].

    Raises
    ------
    ShapeError, InputError
        For other shapes or types, and for values outside [0, 1].
    """
    check_pictures(images, reconstructions)
    return np.array([_correlation(image, other) for image, other in zip(images, reconstructions, strict=True)])


def _correlation(image: Array, other: Array) -> float:
    a, b = to_working_size(image).ravel(), to_working_size(other).ravel()
    a -= a.mean()
    b -= b.mean()
    spread = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if min(spread) <= _FLAT * a.size**0.5:
        return 0.0
    return float(np.clip(a @ b / (spread[0] * spread[1]), -1, 1))


PIXCORR = Metric(
    name="pixcorr",
    label="PixCorr",
    meaning="Correlation of the pixels. 1 would be the same picture, 0 is no relation.",
    needs="images",
    function=pixcorr,
    range=(-1, 1),
)
