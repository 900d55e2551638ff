"""What the papers' networks decode is an embedding of the picture; features that are none are fitted otherwise."""

from __future__ import annotations

from typing import Any

from ...runtime.features import EMBEDDING

EMBEDDINGS = ("semantic", EMBEDDING)
_HEAD = 1024


def loss_of(feature: str, contrastive: float) -> dict[str, Any]:
    """The paper's share of the contrastive loss for an embedding; others are compared by their values alone."""
    return {"contrastive": contrastive if feature in EMBEDDINGS else 0.0}


def head_of(feature: str) -> dict[str, Any]:
    """The paper's projection head for an embedding, which it gives; for others one of 1,024 and a linear map."""
    return {"embedding": None if feature in EMBEDDINGS else _HEAD}
