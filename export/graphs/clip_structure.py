"""`clip_structure`: picture to structure, semantic feature and embedding, with resize and normalisation inside."""

from __future__ import annotations

from torch import Tensor

from ...runtime.models.models import Models
from ..onnx.network_graph import NetworkGraph
from .base import specs_of


def graph(models: Models, *, semantic: bool) -> NetworkGraph:
    """All three features of CLIP, whatever `semantic` says: controls and metrics want them."""
    specs = specs_of(models, "clip_structure", semantic=semantic)

    def features(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        structure, token, embedding = models.features(image)
        return structure, token, embedding

    return NetworkGraph(
        name="clip_structure",
        inputs=specs.inputs,
        outputs=specs.outputs,
        forward=features,
        forward_inputs=("image",),
    )
