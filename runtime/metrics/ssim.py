"""Structural similarity, in the two readings that published tables mix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from .base import Array, FloatArray, Metric, check_picture_set, check_pictures
from .resize import by_pillow, to_working_size

BOTH, COLUMNS = (0, 1), (0,)  # the axes along which windows lie
_LUMA = np.array([0.2125, 0.7154, 0.0721])  # scikit-image's rgb2gray
_SIGMA, _RADIUS = 1.5, 5
_C1, _C2 = 0.01**2, 0.03**2  # (K1 R)^2 and (K2 R)^2 with data range R = 1
_OFFSETS = np.arange(_RADIUS + 1)
_HALF_WINDOW = np.exp(-0.5 * (_OFFSETS / _SIGMA) ** 2)
_HALF_WINDOW /= 2 * _HALF_WINDOW.sum() - _HALF_WINDOW[0]
_Moments = tuple[FloatArray, FloatArray, FloatArray]  # a grey picture, the local means of it and of its square


def ssim(images: Array, reconstructions: Array) -> FloatArray:
    """Mean structural similarity of the grey pictures (Wang et al. 2004), over two dimensions.

    Both are resized to 256 x 256 and then 425 x 425. Gaussian window of sigma 1.5 and 11 x 11 pixels, K1 = 0.01,
    K2 = 0.03, population covariance; the outer 5 pixels are left out. Equal to scikit-image 0.20 and later.

    Parameters
    ----------
    images, reconstructions
        (n, 3, H, W) floating point in [0, 1]; the two may differ in H and W.

    Returns
    -------
    (n,) float64, at most 1.

    Raises
    ------
    ShapeError, InputError
        For other shapes or types, and for values outside [0, 1].
    """
    return _each(images, reconstructions, _grey, BOTH)


def ssim_columns(images: Array, reconstructions: Array) -> FloatArray:
    """The same with a one-dimensional window along each pixel column; the outer 5 rows are left out.

    This is what `structural_similarity(multichannel=True)` of scikit-image up to 0.19 does with a grey picture:
    it takes the columns for channels. Many published values of "SSIM" are of this kind and are higher than
    :func:`ssim` of the same pictures; the two must not be compared. Arguments and errors are those of :func:`ssim`.
    """
    return _each(images, reconstructions, _grey, COLUMNS)


def ssim_aliased(images: Array, reconstructions: Array) -> FloatArray:
    """:func:`ssim` of pictures that are made smaller without antialiasing, as torchvision did up to 0.16."""
    return _each(images, reconstructions, _grey_aliased, BOTH)


def ssim_columns_aliased(images: Array, reconstructions: Array) -> FloatArray:
    """:func:`ssim_columns` of pictures that are made smaller without antialiasing."""
    return _each(images, reconstructions, _grey_aliased, COLUMNS)


def ssim_pil425(images: Array, reconstructions: Array) -> FloatArray:
    """:func:`ssim` of pictures that Pillow resizes to 425 x 425 at once."""
    return _each(images, reconstructions, _grey_by_pillow, BOTH)


def ssim_columns_pil425(images: Array, reconstructions: Array) -> FloatArray:
    """:func:`ssim_columns` of pictures that Pillow resizes to 425 x 425 at once: Brain-Diffuser's evaluation."""
    return _each(images, reconstructions, _grey_by_pillow, COLUMNS)


def _each(
    images: Array, reconstructions: Array, grey: Callable[[Array], FloatArray], axes: tuple[int, ...]
) -> FloatArray:
    check_pictures(images, reconstructions)
    pairs = zip(images, reconstructions, strict=True)
    return np.array(
        [_similarity(_moments(grey(image), axes), _moments(grey(other), axes), axes) for image, other in pairs]
    )


def ssim_crossed(
    images: Sequence[Array],
    reconstructions: Sequence[Array],
    grey: Callable[[Array], FloatArray] | None = None,
    axes: tuple[int, ...] = BOTH,
) -> FloatArray:
    """:func:`ssim` of every image with every reconstruction: what belongs to one picture is computed once.

    Parameters
    ----------
    images, reconstructions
        k and l pictures (3, H, W) floating point in [0, 1], of any sizes.
    grey, axes
        Makes the grey picture that is compared (None: as for :func:`ssim`), and the axes of the window.

    Returns
    -------
    (k, l) float64.
    """
    for what, pictures in (("images", images), ("reconstructions", reconstructions)):
        for picture in pictures:
            check_picture_set(what, picture[None])
    to_grey = grey or _grey
    first, second = ([_moments(to_grey(one), axes) for one in pictures] for pictures in (images, reconstructions))
    return np.array([[_similarity(x, y, axes) for y in second] for x in first])


def _grey(picture: Array) -> FloatArray:
    """The grey picture at working size; the weighting comes first because it commutes with the resampling."""
    return to_working_size(np.tensordot(_LUMA, picture, axes=1))


def _grey_aliased(picture: Array) -> FloatArray:
    return to_working_size(np.tensordot(_LUMA, picture, axes=1), antialias=False)


def _grey_by_pillow(picture: Array) -> FloatArray:
    return np.tensordot(_LUMA, by_pillow(picture), axes=1)


def _moments(grey: FloatArray, axes: tuple[int, ...]) -> _Moments:
    return grey, _smooth(grey, axes), _smooth(grey * grey, axes)


def _similarity(one: _Moments, other: _Moments, axes: tuple[int, ...]) -> float:
    (x, mean_x, xx), (y, mean_y, yy) = one, other
    xy = _smooth(x * y, axes)
    product = mean_x * mean_y
    squares = mean_x**2 + mean_y**2
    luminance = (2 * product + _C1) / (squares + _C1)
    structure = (2 * (xy - product) + _C2) / (xx + yy - squares + _C2)
    return float((luminance * structure).mean())


def _smooth(field: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    """Gaussian mean along `axes`, only where the whole window fits: the rest is the border that is left out."""
    for axis in axes:
        lines = np.moveaxis(field, axis, 0)
        n_out = len(lines) - 2 * _RADIUS
        total = _HALF_WINDOW[0] * lines[_RADIUS : _RADIUS + n_out]
        for offset, weight in zip(_OFFSETS[1:], _HALF_WINDOW[1:], strict=True):
            before, after = _RADIUS - offset, _RADIUS + offset
            total += weight * (lines[before : before + n_out] + lines[after : after + n_out])
        field = np.moveaxis(total, 0, axis)
    return field


SSIM = Metric(
    name="ssim",
    label="SSIM",
    meaning="Structural similarity in two-dimensional windows. 1 would be the same picture.",
    needs="images",
    function=ssim,
    range=(-1, 1),
)
SSIM_COLUMNS = Metric(
    name="ssim_columns",
    label="SSIM, columns",
    meaning="The one-dimensional variant behind many published tables; kept for comparison.",
    needs="images",
    function=ssim_columns,
    range=(-1, 1),
    headline=False,
)


def _variant(
    standard: Metric, way: str, label: str, how: str, function: Callable[[Array, Array], FloatArray]
) -> Metric:
    return replace(
        standard,
        name=f"{standard.name}_{way}",
        label=f"{standard.label}, {label}",
        meaning=f"{standard.meaning} {how}",
        function=function,
        headline=False,
        default=False,
    )


_ALIASED = (
    "aliased",
    "not antialiased",
    "Pictures are made smaller without antialiasing, as torchvision did up to 0.16.",
)
_PILLOW = ("pil425", "Pillow 425 px", "Pictures are resized to 425 px by Pillow, as in Brain-Diffuser's evaluation.")
SSIM_VARIANTS = (
    _variant(SSIM, *_ALIASED, ssim_aliased),
    _variant(SSIM, *_PILLOW, ssim_pil425),
    _variant(SSIM_COLUMNS, *_ALIASED, ssim_columns_aliased),
    _variant(SSIM_COLUMNS, *_PILLOW, ssim_columns_pil425),
)
CROSSED: dict[Callable[..., FloatArray], Callable[..., FloatArray]] = {
    function: partial(ssim_crossed, grey=grey, axes=axes)
    for function, grey, axes in (
        (ssim, _grey, BOTH),
        (ssim_aliased, _grey_aliased, BOTH),
        (ssim_pil425, _grey_by_pillow, BOTH),
        (ssim_columns, _grey, COLUMNS),
        (ssim_columns_aliased, _grey_aliased, COLUMNS),
        (ssim_columns_pil425, _grey_by_pillow, COLUMNS),
    )
}
