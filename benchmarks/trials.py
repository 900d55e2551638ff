"""Trials that every contestant is given: what decoders would give, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from minddiffuser.runtime.data.trial_ids import row_ids
from minddiffuser.runtime.generators.noise import trial_noise
from minddiffuser.runtime.models.models import Models

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """n trials, numpy float32.

    Attributes
    ----------
    latent, noise : (n, 4, h, w)
    context : (n, 15, d_text)
    uncond_context : (15, d_text)
    target : (n, 6, n_tokens, d_vision)
    mask : (6, n_tokens, d_vision) bool
    """

    latent: Float32
    noise: Float32
    context: Float32
    uncond_context: Float32
    target: Float32
    mask: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.latent)

    def start(self) -> tuple[Float32, Float32, Float32, Float32]:
        """What a generator begins with, in its order."""
        return self.latent, self.context, self.uncond_context, self.noise


def draw(models: Models, n: int, seed: int = 0) -> Trials:
    """Latents of unit size, contexts of normal numbers, and as targets the structure of other pictures.

    A quarter of the structure is kept, as selection does.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Float32:
        return rng.standard_normal(shape, dtype=np.float32)

    others = torch.from_numpy(normal(n, *models.latent_shape)).to(models.device)
    with torch.no_grad():
        target = models.structure(models.decode_latent(others))[0].float().cpu().numpy()
    return Trials(
        latent=normal(n, *models.latent_shape),
        noise=trial_noise(seed, row_ids(n), models.latent_shape),
        context=normal(n, *models.context_shape),
        uncond_context=normal(*models.context_shape),
        target=target,
        mask=rng.random(models.structure_shape) < 0.25,
    )
