"""Pixel correlation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from .base import Array, FloatArray, Metric, check_picture_set, check_pictures
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


def pixcorr_crossed(
    images: Sequence[Array],
    reconstructions: Sequence[Array],
    resized: Callable[[Array], FloatArray] = to_working_size,
) -> FloatArray:
    """:func:`pixcorr` of every image with every reconstruction, each of which is resized once.

    Parameters
    ----------
    images, reconstructions
        k and l pictures (3, H, W) floating point in [0, 1], of any sizes.
    resized
        Brings a picture to the size at which it is compared.

    Returns
    -------
    (k, l) float64.
    """
    for what, pictures in (("images", images), ("reconstructions", reconstructions)):
        for picture in pictures:
            check_picture_set(what, picture[None])
    first, second = ([_spread(resized(one).ravel()) for one in pictures] for pictures in (images, reconstructions))
    products = np.stack([values for values, _ in first]) @ np.stack([values for values, _ in second]).T
    norms = np.outer([norm for _, norm in first], [norm for _, norm in second])
    correlations: FloatArray = np.clip(products / norms, -1, 1)
    return correlations


def _correlation(a: FloatArray, b: FloatArray) -> float:
    (a, a_norm), (b, b_norm) = _spread(a), _spread(b)
    return float(np.clip(a @ b / (a_norm * b_norm), -1, 1))


def _spread(values: FloatArray) -> tuple[FloatArray, float]:
    """Colour values about their mean, and their norm; of a flat picture zeros, and one to divide by."""
    values = values - values.mean()
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
CROSSED: dict[Callable[..., FloatArray], Callable[..., FloatArray]] = {
    pixcorr: pixcorr_crossed,
    pixcorr_aliased: partial(pixcorr_crossed, resized=partial(to_working_size, antialias=False)),
    pixcorr_pil425: partial(pixcorr_crossed, resized=by_pillow),
}
