"""How near the nearest concept of an epoch would be if the epoch said nothing: the yardstick of its confidence.

Beside each epoch some scrambled copies are decoded: its z-scores by the training statistics, moved round in time by a
random amount, all channels alike. Such a copy has the epoch's size, spectrum and topographies, and no answer to the
event. The confidence of an epoch is the share of the copies of earlier epochs whose nearest candidate was less near
than its own: evenly spread from 0 to 1 where nothing is decoded, whatever the decoder's own scale is.
"""

from __future__ import annotations

import hashlib
from collections import deque

import numpy as np
from numpy.typing import NDArray

from ...runtime.decoders.scale import TrainingStatistics

Float32 = NDArray[np.float32]
PER_EPOCH = 2
_POOL = 400
# Below this many copies a share says nothing.
LEAST = 20


class Null:
    """The scrambled copies of the epochs so far.

    Parameters
    ----------
    training
        Of the decoder.
    seed
        Of the session: what is drawn for an epoch depends on this and on its trial's id.
    """

    def __init__(self, training: TrainingStatistics, seed: int) -> None:
        self._training, self._seed = training, seed
        self._pool: deque[float] = deque(maxlen=_POOL)

    def copies(self, response: Float32, trial_id: str) -> Float32:
        """Scrambled copies (`PER_EPOCH`, n_channels, n_times) of a response (n_channels, n_times)."""
        digest = hashlib.sha256(f"{self._seed}/null/{trial_id}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest))
        scores, n_times = self._training.scores(response[None])[0], response.shape[1]
        # By a quarter of the epoch or more, so that the answer does not stay where it was.
        shifts = rng.integers(n_times // 4, n_times - n_times // 4 + 1, PER_EPOCH)
        moved = np.stack([np.roll(scores, shift, axis=1) for shift in shifts])
        return np.asarray(self._training.mean + self._training.std * moved, np.float32)

    def add(self, similarity: Float32) -> None:
        """Take what was decoded from copies, (n, n_candidates)."""
        self._pool.extend(float(value) for value in similarity.max(axis=1) if np.isfinite(value))

    def confidence(self, nearest: float) -> float | None:
        """The share of copies that were less near than `nearest`, equal ones by half; None of fewer than `LEAST`."""
        if len(self._pool) < LEAST:
            return None
        pool = np.array(self._pool)
        return float(((pool < nearest).sum() + 0.5 * (pool == nearest).sum()) / len(pool))
