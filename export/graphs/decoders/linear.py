"""A linear decoder as a gather and a weighted sum.

The weights stay sparse: a dense matrix of the paper's latent decoder would have 11,694 x 16,384 entries, of which 4,000
per column are used.
"""

from __future__ import annotations

import numpy as np

from ....runtime.decoders.linear import Linear
from ..builder import Builder

# Weights gathered together: bounds the memory of one trial, 16 MB for responses and as much for products.
_WEIGHTS_AT_ONCE = 1 << 22


def add(build: Builder, scores: str, decoder: Linear, _feature: str) -> str:
    """Nodes from z-scored responses (batch, *response_shape) to predictions (batch, n_predicted)."""
    flat = build.node("Flatten", [scores], axis=1)
    rows = []
    step = max(1, _WEIGHTS_AT_ONCE // decoder.index.shape[1])
    for number, start in enumerate(range(0, len(decoder.bias), step)):
        part = slice(start, start + step)
        index = build.constant(f"index_{number}", decoder.index[part])
        weight = build.constant(f"weight_{number}", decoder.weight[part])
        gathered = build.node("Gather", [flat, index], axis=1)
        products = build.node("Mul", [gathered, weight])
        rows.append(build.node("ReduceSum", [products, build.constant("last_axis", np.array([-1]))], keepdims=0))
    found = rows[0] if len(rows) == 1 else build.node("Concat", rows, axis=1)
    return build.node("Add", [found, build.constant("bias", decoder.bias)])
