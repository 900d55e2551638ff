"""Pixel correlation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Array, FloatArray, Metric, check_picture_set, check_pictures
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


def pixcorr_crossed(images: Sequence[Array], reconstructions: Sequence[Array]) -> FloatArray:
    """:func:`pixcorr` of every image with every reconstruction, each of which is resized once.

    Parameters
    ----------
    images, reconstructions
        k and l pictures (3, H, W) floating point in [0, 1], of any sizes.

    Returns
    -------
    (k, l) float64.
    """
    sets = []
    for what, pictures in (("images", images), ("reconstructions", reconstructions)):
        for picture in pictures:
            check_picture_set(what, picture[None])
        sets.append([_spread(picture) for picture in pictures])
    (rows, row_norms), (columns, column_norms) = (
        (np.stack([values for values, _ in found]), np.array([norm for _, norm in found])) for found in sets
    )
    return np.clip(rows @ columns.T / np.outer(row_norms, column_norms), -1, 1)


def _correlation(image: Array, other: Array) -> float:
    (a, a_norm), (b, b_norm) = _spread(image), _spread(other)
    return float(np.clip(a @ b / (a_norm * b_norm), -1, 1))


def _spread(picture: Array) -> tuple[FloatArray, float]:
    """The colour values about their mean, and their norm; of a flat picture zeros, and one to divide by."""
    values = to_working_size(picture).ravel()
    values -= values.mean()
    norm = float(np.linalg.norm(values))
    if norm <= _FLAT * values.size**0.5:
        return np.zeros_like(values), 1.0
    return values, norm


PIXCORR = Metric(
    name="pixcorr",
    label="PixCorr",
    meaning="Correlation of the pixels. 1 would be the same picture, 0 is no relation.",
    needs="images",
    function=pixcorr,
    crossed=pixcorr_crossed,
    range=(-1, 1),
)
