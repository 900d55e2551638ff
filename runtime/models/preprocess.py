"""The one way an image reaches the CLIP: an antialiased resize and the CLIP's own normalisation, differentiable.

Targets and generated images go through this very function. The reference code does not: it resizes targets
bilinearly and generated images bicubically without antialiasing, and normalises both with ImageNet's statistics,
so that even a perfect reconstruction has a structural loss. Here both are resized with the filter of the CLIP's own
preprocessing (bicubic, antialiased, as Pillow does) and normalised with the CLIP's own mean and deviation.

The resize is two products with a matrix, W x W', computed once in float64: the same numbers on a CPU, CUDA or MPS
and in an exported graph, where an antialiased resize operator often does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from ..errors import ShapeError
from ..resampling import resize_matrix


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
