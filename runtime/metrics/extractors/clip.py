"""Embeddings by the CLIP of the run's own networks."""

from __future__ import annotations

from .base import Extractor, Features, Given, Unavailable


def open_clip_embedding(given: Given) -> Features:
    """The networks' embedding, where they have one."""
    if given.embed is None:
        raise Unavailable(given.without_models or "the bundle has no graph clip_structure")
    return Features(identity=f"clip {given.embed_identity}", of_pictures=given.embed)


CLIP = Extractor(name="clip", open=open_clip_embedding)
