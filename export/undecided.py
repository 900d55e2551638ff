"""What `structure_gradient` may differ by where rounding decides whether a pixel is clamped.

A clamped pixel has no slope. Two engines whose pictures agree to a rounding error decide differently about the few
pixels that lie within that error of black or white, and the slopes of these, times the decoder's, are the difference
of their gradients: right on either side, and far above any tolerance for rounding (docs/engines.md has the figures).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from ..runtime.engines.pytorch import loss_of
from ..runtime.models.models import Models
from .parity import TOLERANCES


def clamp_jumps(
    models: Models, feeds: Mapping[str, NDArray[np.float32]], window: float = TOLERANCES["fp32"].worst
) -> dict[str, NDArray[np.float32]]:
    """The part of `structure_gradient` that comes from undecided pixels.

    Parameters
    ----------
    feeds
        Inputs of `structure_gradient`.
    window
        How far from 0 and 1 a pixel is undecided: as far as a picture may be off.

    Returns
    -------
    dict
        "latent_gradient": (n, 4, h, w) float32.
    """
    given = {name: torch.as_tensor(array).to(models.device, models.precise) for name, array in feeds.items()}
    latent = given["latent"].detach().requires_grad_()
    with torch.enable_grad():
        pixels = models.decode_unclamped(latent)
        image = pixels.detach().clamp(0, 1).requires_grad_()
        (slope,) = torch.autograd.grad(loss_of(models, given, image).sum(), image)
        undecided = torch.minimum(pixels.abs(), (pixels - 1).abs()) <= window
        (jump,) = torch.autograd.grad(pixels, latent, slope * undecided)
    return {"latent_gradient": np.asarray(jump.float().cpu())}
