"""Bilinear resampling of pictures in numpy, and the size at which published comparisons look at them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..errors import InputError
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
def _working_matrix(n_in: int) -> FloatArray:
    matrix = np.eye(n_in)
    for size in WORKING_SIZES:
        matrix = resize_matrix(len(matrix), size, "bilinear") @ matrix
    matrix.flags.writeable = False
    return matrix


def to_working_size(picture: Array) -> FloatArray:
    """Bring the last two axes to 256 x 256 and then to 425 x 425, as the published comparison does.

    Both steps are linear, so their matrices are multiplied once per input size and applied together.
    """
    resized: FloatArray = _working_matrix(picture.shape[-2]) @ picture.astype(np.float64)
    return resized @ _working_matrix(picture.shape[-1]).T
