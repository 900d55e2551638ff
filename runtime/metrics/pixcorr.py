"""Pixel correlation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from .base import Array, FloatArray, Metric, check_pictures
from .resize import by_pillow, to_working_size

# Rounding leaves a flat picture a spread near 1e-16; one step of one pixel of an 8-bit picture is far above 1e-9.
_FLAT = 1e-9


def pixcorr(images: Array, reconstructions: Array) -> FloatArray:
    """Pearson correlation of all colour values of each picture with those of its reconstruction.

    Both are resized to 256 x 256 and then 425 x 425 (bilinear, antialiased as with torchvision 0.17 and later), as in
    the evaluation code of MindEye (Scotti et al. 2023, 2024). Where either picture is one flat colour value the
    correlation is undefined and counts as 0: a flat picture says nothing about the other.

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
    return _each(images, reconstructions, to_working_size)


def pixcorr_aliased(images: Array, reconstructions: Array) -> FloatArray:
    """The same of pictures that are made smaller without antialiasing, as torchvision did up to 0.16.

    Arguments and errors are those of :func:`pixcorr`.
    """
    return _each(images, reconstructions, partial(to_working_size, antialias=False))


def pixcorr_pil425(images: Array, reconstructions: Array) -> FloatArray:
    """The same of pictures that Pillow resizes to 425 x 425 at once, as in Brain-Diffuser's evaluation.

    Arguments and errors are those of :func:`pixcorr`.
    """
    return _each(images, reconstructions, by_pillow)


def _each(images: Array, reconstructions: Array, resized: Callable[[Array], FloatArray]) -> FloatArray:
    check_pictures(images, reconstructions)
    pairs = zip(images, reconstructions, strict=True)
    return np.array([_correlation(resized(image).ravel(), resized(other).ravel()) for image, other in pairs])


def _correlation(a: FloatArray, b: FloatArray) -> float:
    a, b = a - a.mean(), b - b.mean()
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
PIXCORR_ALIASED = replace(
    PIXCORR,
    name="pixcorr_aliased",
    label="PixCorr, not antialiased",
    meaning=f"{PIXCORR.meaning} Pictures are made smaller without antialiasing, as torchvision did up to 0.16.",
    function=pixcorr_aliased,
    headline=False,
    default=False,
)
PIXCORR_PIL425 = replace(
    PIXCORR,
    name="pixcorr_pil425",
    label="PixCorr, Pillow 425 px",
    meaning=f"{PIXCORR.meaning} Pictures are resized to 425 px by Pillow, as in Brain-Diffuser's evaluation.",
    function=pixcorr_pil425,
    headline=False,
    default=False,
)
