"""Numbers in eight bits: symmetric, one scale for a tensor or for each slice of it along one axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LEVELS = 127  # of int8, symmetric: -128 is left unused, as TensorRT demands a zero point of 0
FEWER_LEVELS = 64  # 7 bits: CPUs without VNNI add two products (of 255 and 64, at most) in 16 bits and clip silently


def in_eight_bits(array: Array, axis: int, *, levels: int = LEVELS) -> tuple[Array, Array]:
    """Quantise each slice along `axis` to -levels … levels.

    Parameters
    ----------
    array : array of float32

    Returns
    -------
    numbers : array of int8, same shape
    scales : array of shape (array.shape[axis],) float32
        Of a slice of zeros: 1.
    """
    others = tuple(i for i in range(array.ndim) if i != axis)
    scales = scale_of(np.abs(array).max(axis=others, initial=0.0), levels=levels)
    spread = scales.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    return np.clip(np.rint(array / spread), -levels, levels).astype(np.int8), scales


def scale_of(peak: Array | float, *, levels: int = LEVELS) -> Array:
    """The step with which `levels` steps reach `peak`; 1 where that is 0 or too small to divide by."""
    scale = np.asarray(peak, np.float32) / np.float32(levels)
    return np.where(scale > np.finfo(np.float32).tiny, scale, np.float32(1.0)).astype(np.float32)
