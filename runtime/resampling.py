"""A resize as a small matrix along each axis: the same numbers in numpy, PyTorch and an exported graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def _cubic(x: Float64) -> Float64:
    """Keys' cubic with a = -0.5, the one of Pillow and of torch's antialiased resize."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    result: Float64 = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return result


def _triangle(x: Float64) -> Float64:
    result: Float64 = np.maximum(1 - np.abs(x), 0.0)
    return result


KERNELS: dict[str, Callable[[Float64], Float64]] = {"bicubic": _cubic, "bilinear": _triangle}


@lru_cache(maxsize=32)
def resize_matrix(n_in: int, n_out: int, interpolation: str, *, antialias: bool = True) -> Float64:
    """The resize of a line of `n_in` pixels to `n_out`, as a read-only matrix (n_out, n_in) float64.

    Rows sum to one. When shrinking with `antialias`, the filter is stretched by n_in / n_out; at the border it is cut.
    Equal to `torch.nn.functional.interpolate(align_corners=False)` and to torchvision's `Resize` on float tensors; of
    "bicubic" that holds with `antialias` alone: without it PyTorch takes another cubic.
    """
    scale = n_in / n_out
    centre = (np.arange(n_out) + 0.5) * scale
    distance = (np.arange(n_in) + 0.5) - centre[:, None]
    weight = KERNELS[interpolation](distance / (max(scale, 1.0) if antialias else 1.0))
    weight /= weight.sum(axis=1, keepdims=True)
    weight.flags.writeable = False  # shared by all callers through the cache
    return weight
