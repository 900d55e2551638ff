"""Renderings made as poor as reconstructions are, with the mask of the object kept true.

None of it uses the world's VAE or CLIP: the locator stays apart from what the pictures are made with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Ranges:
    """How far pictures are degraded; shares are of the pictures, lengths in picture widths or pixels as named."""

    warped: float = 0.5
    warp: float = 0.06  # picture widths
    faded: float = 0.35
    least_visible: float = 0.4
    empty: float = 0.05
    recoloured: float = 0.3
    blurred: float = 0.5
    blur_px: float = 2.5
    coarsened: float = 0.25
    noise: float = 0.06
    blotches: float = 0.07


def degrade(
    image: Tensor, background: Tensor, coverage: Tensor, rng: np.random.Generator, ranges: Ranges | None = None
) -> tuple[Tensor, Tensor]:
    """Degrade pictures in their outlines, contrast, colours, sharpness and noise, each by chance.

    Parameters
    ----------
    image, background : (n, 3, h, w) in [0, 1]
        Pictures with and without their objects.
    coverage : (n, 1, h, w) in [0, 1]
    rng
        Decides everything.

    Returns
    -------
    The degraded pictures in [0, 1], and what their objects cover: warped with them, nothing where they are gone.
    """
    chance = _Chance(rng, len(image))
    r = ranges or Ranges()
    image, background, coverage = _warp(image, background, coverage, chance, r)
    tint = chance.uniform(-0.5, 0.5, channels=3) * chance.happens(r.recoloured)
    image = image + tint * coverage
    visible = 1 - chance.happens(r.faded) * chance.uniform(0, 1 - r.least_visible)
    there = 1 - chance.happens(r.empty)
    image = background + visible * there * (image - background)
    image = _colours(image, chance)
    image = _soften(image, chance, r)
    return _noise(image, chance, r).clamp(0, 1), coverage * there


class _Chance:
    """Random numbers for each of n pictures, shaped (n, channels, 1, 1)."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        self.rng, self.n = rng, n

    def uniform(self, low: float, high: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(self.rng.uniform(low, high, (self.n, channels, 1, 1)).astype(np.float32))

    def happens(self, share: float) -> Tensor:
        return (self.uniform(0, 1) < share).float()

    def normal(self, channels: int, height: int, width: int) -> Tensor:
        return torch.from_numpy(self.rng.standard_normal((self.n, channels, height, width), np.float32))


def _warp(
    image: Tensor, background: Tensor, coverage: Tensor, chance: _Chance, r: Ranges
) -> tuple[Tensor, Tensor, Tensor]:
    """Bend all three alike by a smooth field of displacements."""
    height, width = image.shape[2:]
    field = F.interpolate(chance.normal(2, 5, 5), (height, width), mode="bicubic", align_corners=True)
    shift = field * chance.happens(r.warped) * chance.uniform(0, r.warp)
    # grid_sample's coordinates run from -1 to 1, two to a picture width.
    identity = F.affine_grid(torch.eye(2, 3).expand(len(image), 2, 3), list(image.shape), align_corners=False)
    grid = identity + 2 * shift.permute(0, 2, 3, 1)
    layers = torch.cat([image, background, coverage], 1)
    bent = F.grid_sample(layers, grid, padding_mode="border", align_corners=False)
    return bent[:, :3], bent[:, 3:6], bent[:, 6:]


def _colours(image: Tensor, chance: _Chance) -> Tensor:
    """Contrast about the mean, brightness, and a cast."""
    mean = image.mean((1, 2, 3), keepdim=True)
    image = mean + (image - mean) * chance.uniform(0.6, 1.2)
    return image + chance.uniform(-0.12, 0.12) + 0.06 * chance.uniform(-1, 1, channels=3)


def _soften(image: Tensor, chance: _Chance, r: Ranges) -> Tensor:
    """Blur half of the pictures, and send some through a coarser grid."""
    blurred = blur(image, chance.rng.uniform(0.3, r.blur_px))
    image = image + chance.happens(r.blurred) * chance.uniform(0, 1) * (blurred - image)
    side = image.shape[-1]
    coarse = F.interpolate(image, size=max(8, round(side / chance.rng.uniform(1.5, 5))), mode="area")
    fine = F.interpolate(coarse, size=side, mode="bilinear", align_corners=False)
    return image + chance.happens(r.coarsened) * (fine - image)


def blur(image: Tensor, sigma_px: float) -> Tensor:
    """Pictures (n, 3, h, w) smoothed by a Gaussian of this standard deviation in pixels, edges continued."""
    radius = math.ceil(2.5 * sigma_px)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    image = F.conv2d(F.pad(image, (radius, radius, 0, 0), mode="replicate"), kernel, groups=3)
    return F.conv2d(F.pad(image, (0, 0, radius, radius), mode="replicate"), kernel.transpose(2, 3), groups=3)


def _noise(image: Tensor, chance: _Chance, r: Ranges) -> Tensor:
    """Grain, and blotches of the size that a latent's cells have, as a decoder draws them."""
    side = image.shape[-1]
    image = image + chance.uniform(0, r.noise) * chance.normal(3, side, side)
    for cells in (8, 16, 32):
        blotches = F.interpolate(chance.normal(3, cells, cells), size=side, mode="bicubic", align_corners=False)
        image = image + chance.happens(0.5) * chance.uniform(0, r.blotches) * blotches
    return image
