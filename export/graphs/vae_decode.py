"""`vae_decode`: latent to picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import BATCH, NetworkGraph, float32

if TYPE_CHECKING:
    from ...runtime.models.models import Models


def graph(models: Models, *, semantic: bool) -> NetworkGraph:
    """Pictures in [0, 1] from latents. `semantic` is not used."""
    size = models.image_size
    return NetworkGraph(
        name="vae_decode",
        inputs={"latent": float32(BATCH, *models.latent_shape)},
        outputs={"image": float32(BATCH, 3, size, size)},
        forward=models.decode_latent,
        forward_inputs=("latent",),
    )
