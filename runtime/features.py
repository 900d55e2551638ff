"""The features: what is decoded from responses, and what pictures are made of and compared by."""

from __future__ import annotations

# Each with the rank of its shape. The semantic feature of eq. 6 may be absent.
RANKS = {"context": 2, "latent": 3, "structure": 3, "semantic": 1}
FEATURES = tuple(RANKS)
REQUIRED_FEATURES = ("context", "latent", "structure")

EMBEDDING = "embedding"
"""The CLIP image embedding. It is no feature that pictures are made of: the context may be found by way of it."""
TARGET_RANKS = {**RANKS, EMBEDDING: 1}
TARGETS = tuple(TARGET_RANKS)
"""What decoders are fitted to: the features, and the embedding in the place of the context."""

N_TOKENS = 15
"""Text tokens of a context, in both worlds. The paper's code shortens SD's 77 to 15 (captions are short)."""
