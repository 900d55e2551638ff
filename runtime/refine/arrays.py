"""The few things that a refiner does with arrays for which numpy and torch have different words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def copied(array: Any) -> Any:
    """A copy without gradients."""
    return array.detach().clone() if _is_torch(array) else np.array(array)


def zeros_like(array: Any) -> Any:
    """Zeros of an array's kind, shape and dtype."""
    return array.new_zeros(array.shape) if _is_torch(array) else np.zeros_like(array)


def filled(like: Any, n: int, value: float) -> Any:
    """`n` rows of one number, otherwise as `like`."""
    shape = (n, *like.shape[1:])
    return like.new_full(shape, value) if _is_torch(like) else np.full(shape, value, like.dtype)


def assign(kept: Any, new: Any, rows: NDArray[np.bool_]) -> None:
    """Replace the rows that are True by those of `new`."""
    chosen = np.flatnonzero(rows).tolist()  # a list of rows is an index that numpy and every torch device take
    if chosen:
        kept[chosen] = new[chosen].detach() if _is_torch(new) else new[chosen]


def on_host(array: Any) -> NDArray[np.float32]:
    """As float32 in numpy."""
    return np.asarray(array.detach().cpu().float() if _is_torch(array) else array, dtype=np.float32)


def as_float64(array: Any) -> NDArray[np.float64]:
    """On the host, in float64."""
    return np.asarray(array.detach().cpu().double() if _is_torch(array) else array, dtype=np.float64)


def unit(gradient: Any) -> Any:
    """Each row (n, ...) brought to Euclidean length 1; a row of zeros stays.

    By its largest value first, so that no square leaves the range of float32.
    """
    axes = tuple(range(1, gradient.ndim))
    largest = abs(gradient).amax(axes, keepdim=True) if _is_torch(gradient) else abs(gradient).max(axes, keepdims=True)
    scaled = gradient / (largest + (largest == 0))
    length = (scaled**2).sum(axes, **({"keepdim": True} if _is_torch(gradient) else {"keepdims": True})) ** 0.5
    return scaled / (length + (length == 0))


def smoothed(maps: Any, width: float) -> Any:
    """Blur each map of (n, c, h, w) by a Gaussian whose standard deviation is `width` of its pixels; 0 leaves it.

    At an edge the weights of the pixels that are there are brought to a sum of 1.
    """
    if width == 0:
        return maps
    down, across = (_gaussian(size, width) for size in maps.shape[-2:])
    if _is_torch(maps):
        return maps.new_tensor(down) @ maps @ maps.new_tensor(across.T)
    return down.astype(maps.dtype) @ maps @ across.T.astype(maps.dtype)


def _gaussian(size: int, width: float) -> NDArray[np.float64]:
    """(size, size): row i averages with weights around i."""
    at = np.arange(size)
    weights = np.exp(-((at[:, None] - at) ** 2) / (2 * width**2))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _is_torch(array: Any) -> bool:
    return hasattr(array, "detach")
