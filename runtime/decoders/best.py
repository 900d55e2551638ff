"""The best-decoded dimensions of each structural layer: those that stage 2 trusts (Algorithm 1 of the paper)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_per_layer(score: NDArray[np.float32], percent: float) -> NDArray[np.bool_]:
    """Mark the best `percent` of each layer of `score` (n_layers, ...), at least one dimension.

    Equal scores are resolved towards the lower position, so that the mask has the same size everywhere.
    """
    flat = score.reshape(len(score), -1)
    n_kept = max(1, round(flat.shape[1] * percent / 100))
    mask = np.zeros(flat.shape, bool)
    best = np.argsort(-flat, axis=1, kind="stable")[:, :n_kept]
    np.put_along_axis(mask, best, True, axis=1)
    return mask.reshape(score.shape)
