"""`clip_structure`: picture to structure, semantic feature and embedding, with resize and normalisation inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .base import BATCH, NetworkGraph, float32

if TYPE_CHECKING:
    from ...runtime.models.models import Models


def graph(models: Models, *, semantic: bool) -> NetworkGraph:
    """All three features of CLIP, whatever `semantic` says: controls and metrics want them."""
    size, shape = models.image_size, models.structure_shape

    def features(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        structure, token, embedding = models.features(image)
        return structure, token, embedding

    return NetworkGraph(
        name="clip_structure",
        inputs={"image": float32(BATCH, 3, size, size)},
        outputs={
            "structure": float32(BATCH, *shape),
            "semantic": float32(BATCH, shape[-1]),
            "embedding": float32(BATCH, models.embedding_size),
        },
        forward=features,
        forward_inputs=("image",),
    )
