"""Bilinear resampling of pictures in numpy, and the size at which published comparisons look at them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..errors import InputError
from ..images import to_uint8
from ..resampling import resize_matrix
from .base import Array, FloatArray

WORKING_SIZES = (256, 425)


def resize(pictures: Array, height: int, width: int) -> FloatArray:
    """Resample the last two axes of `pictures` (..., H, W) to (..., height, width), float64."""
    if height < 1 or width < 1:
        raise InputError(f"the new size is {height} x {width}, expected at least 1 x 1: choose a larger one")
    rows = resize_matrix(pictures.shape[-2], height, "bilinear")
    columns = resize_matrix(pictures.shape[-1], width, "bilinear")
    resized: FloatArray = rows @ pictures.astype(np.float64) @ columns.T
    return resized


@lru_cache(maxsize=32)
def _working_matrix(n_in: int, antialias: bool) -> FloatArray:
    matrix = np.eye(n_in)
    for size in WORKING_SIZES:
        matrix = resize_matrix(len(matrix), size, "bilinear", antialias=antialias) @ matrix
    matrix.flags.writeable = False
    return matrix


def to_working_size(picture: Array, *, antialias: bool = True) -> FloatArray:
    """Bring the last two axes to 256 x 256 and then to 425 x 425, as the published comparison does.

    Both steps are linear, so their matrices are multiplied once per input size and applied together. With `antialias`
    as torchvision's `Resize` does from 0.17 on, without as it did up to 0.16; the same for pictures of up to 256 px.
    """
    resized: FloatArray = _working_matrix(picture.shape[-2], antialias) @ picture.astype(np.float64)
    return resized @ _working_matrix(picture.shape[-1], antialias).T


def by_pillow(picture: Array) -> FloatArray:
    """Bring a picture (3, H, W) in [0, 1] to 425 x 425 in 8 bits, by Pillow's own default (bicubic since 7.0).

    Brain-Diffuser's evaluation does so with reconstructions; its stimuli have that size, and here others are resized in
    the same way.
    """
    from PIL import Image

    size = (WORKING_SIZES[-1], WORKING_SIZES[-1])
    resized = Image.fromarray(to_uint8(picture[None])[0]).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float64).transpose(2, 0, 1) / 255
