"""What published evaluations do to a picture before a network sees it: three ways, which give different numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ...images import to_uint8
from ..base import Array

if TYPE_CHECKING:
    import torch

FIRST_SIZE = 256
PIL_SIZE = 224
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

Prepare = Callable[[Array, int], "torch.Tensor"]


def antialiased(images: Array, side: int) -> torch.Tensor:
    """Bilinear to 256 x 256 px, then to the network's own `side`, with antialiasing.

    What MindEye's evaluation does with torchvision 0.17 and later (MindEye2's environment): `Resize` on tensors.

    Parameters
    ----------
    images : (n, 3, H, W) float32 in [0, 1]
    side : of the result, in pixels

    Returns
    -------
    (n, 3, side, side) float32
    """
    return _resized(_resized(_tensor(images), FIRST_SIZE, antialias=True), side, antialias=True)


def aliased(images: Array, side: int) -> torch.Tensor:
    """The same without antialiasing, as with torchvision up to 0.16 (MindEye's first environment has 0.14.1).

    The two differ wherever a picture is made smaller.
    """
    return _resized(_resized(_tensor(images), FIRST_SIZE, antialias=False), side, antialias=False)


def pil224(images: Array, _side: int) -> torch.Tensor:
    """Bilinear by Pillow, in 8 bits and at once, to 224 x 224 px for every network, as Brain-Diffuser does."""
    import torch
    from PIL import Image

    pictures = [
        Image.fromarray(one).resize((PIL_SIZE, PIL_SIZE), Image.Resampling.BILINEAR) for one in to_uint8(images)
    ]
    stacked = np.stack([np.asarray(one) for one in pictures]).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(stacked)).float() / 255


def _tensor(images: Array) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))


def _resized(pixels: torch.Tensor, side: int, *, antialias: bool) -> torch.Tensor:
    from torch.nn.functional import interpolate

    if pixels.shape[-2:] == (side, side):
        return pixels
    return interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=antialias)
