"""Bilinear resampling as two small matrices, equal to torch's antialiased one."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..errors import InputError
from .base import Array, FloatArray

WORKING_SIZES = (256, 425)


@lru_cache(maxsize=32)
def resampling_matrix(n_in: int, n_out: int) -> FloatArray:
    """The weights (n_out, n_in) of bilinear resampling along one axis.

    Each output pixel is a mean of the input under a triangle centred on it, as wide as the coarser of the two
    grids and cut at the border: `torch.nn.functional.interpolate(mode="bilinear", antialias=True,
    align_corners=False)` and torchvision's `Resize` on float tensors.
    """
    step = n_in / n_out
    width = max(step, 1.0)
    centres = (np.arange(n_out) + 0.5) * step
    distance = np.abs(np.arange(n_in) + 0.5 - centres[:, None]) / width
    weights = np.maximum(1 - distance, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    weights.flags.writeable = False  # shared by all callers through the cache
    return weights


def resize(pictures: Array, height: int, width: int) -> FloatArray:
    """Resample the last two axes of `pictures` (..., H, W) to (..., height, width), float64."""
    if height < 1 or width < 1:
        raise InputError(f"the new size is {height} x {width}, expected at least 1 x 1: choose a larger one")
    rows = resampling_matrix(pictures.shape[-2], height)
    columns = resampling_matrix(pictures.shape[-1], width)
    resized: FloatArray = rows @ pictures.astype(np.float64) @ columns.T
    return resized


@lru_cache(maxsize=32)
def _working_matrix(n_in: int) -> FloatArray:
    matrix = np.eye(n_in)
    for size in WORKING_SIZES:
        matrix = resampling_matrix(len(matrix), size) @ matrix
    matrix.flags.writeable = False
    return matrix


def to_working_size(picture: Array) -> FloatArray:
    """Bring the last two axes to 256 x 256 and then to 425 x 425, as the published comparison does.

    Both steps are linear, so their matrices are multiplied once per input size and applied together.
    """
    resized: FloatArray = _working_matrix(picture.shape[-2]) @ picture.astype(np.float64)
    return resized @ _working_matrix(picture.shape[-1]).T
