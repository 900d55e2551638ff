"""`vae_decode`: latent to picture."""

from __future__ import annotations

from ...runtime.models.models import Models
from ..onnx.network_graph import NetworkGraph
from .base import specs_of


def graph(models: Models, *, semantic: bool) -> NetworkGraph:
    """Pictures in [0, 1] from latents. `semantic` is not used."""
    specs = specs_of(models, "vae_decode", semantic=semantic)
    return NetworkGraph(
        name="vae_decode",
        inputs=specs.inputs,
        outputs=specs.outputs,
        forward=models.decode_latent,
        forward_inputs=("latent",),
    )
