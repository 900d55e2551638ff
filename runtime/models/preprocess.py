"""The one way an image reaches the CLIP: an antialiased resize and the CLIP's own normalisation, differentiable.

Targets and generated images go through this very function. The reference code does not: it resizes targets
bilinearly and generated images bicubically without antialiasing, and normalises both with ImageNet's statistics,
so that even a perfect reconstruction has a structural loss. Here both are resized with the filter of the CLIP's own
preprocessing (bicubic, antialiased, as Pillow does) and normalised with the CLIP's own mean and deviation.

The resize is two products with a matrix, W x W', computed once in float64: the same numbers on a CPU, CUDA or MPS
and in an exported graph, where an antialiased resize operator often does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ShapeError

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


def resize_matrix(n_in: int, n_out: int, interpolation: str = "bicubic") -> Float64:
    """The antialiased resize of a line of `n_in` pixels to `n_out`, as a matrix (n_out, n_in) float64.

    Rows sum to one; when shrinking, the filter is stretched by n_in / n_out.
    """
    scale = n_in / n_out
    centre = (np.arange(n_out) + 0.5) * scale
    distance = (np.arange(n_in) + 0.5) - centre[:, None]
    weight = KERNELS[interpolation](distance / max(scale, 1.0))
    matrix: Float64 = weight / weight.sum(axis=1, keepdims=True)
    return matrix


@lru_cache(maxsize=16)
def _matrix(n_in: int, n_out: int, interpolation: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):  # cached over calls, so it must not remember the first caller's mode
        return torch.tensor(resize_matrix(n_in, n_out, interpolation), dtype=torch.float64).to(dtype).to(device)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize to `size` x `size` pixels and normalise: (n, 3, H, H) in [0, 1] to what the visual tower takes.

    `mean` and `std` are per channel, of images in [0, 1]. Values that the bicubic filter takes a little outside
    [0, 1] are left there: clipping them would cut the gradient at every strong edge.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Run it in float32, or in float64 when `image` is float64; returns (n, 3, size, size)."""
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != image.shape[3]:
            raise ShapeError(
                f"images have shape {tuple(image.shape)}, expected (n, 3, H, H): "
                "crop them with runtime.images.fit_square"
            )
        image = image if image.dtype == torch.float64 else image.float()
        dtype, device = image.dtype, image.device
        if image.shape[-1] != self.size:
            weight = _matrix(image.shape[-1], self.size, self.interpolation, dtype, device)
            image = weight @ image @ weight.T
        mean, std = (torch.tensor(v, dtype=dtype, device=device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (image - mean) / std

    def describe(self) -> dict[str, Any]:
        """What a cache key or a manifest says about it."""
        return {
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": f"antialiased {self.interpolation}",
            "version": 1,
        }
