from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.backends.base import Backend
from minddiffuser.streaming.decoding.decode import DecodeSettings, EpochDecoder
from minddiffuser.streaming.session import outlet as module


class Kept:
    """What an LSL outlet would be given."""

    made: Any = None

    def __init__(self, name: str, feature: str, n_embedding: int) -> None:
        self.name, self.feature, self.n = name, feature, n_embedding
        self.pushed: list[tuple[Any, float]] = []
        Kept.made = self

    def push(self, result: Any, at: float) -> None:
        self.pushed.append((result, at))

    def close(self) -> None:
        self.n = 0


@pytest.mark.parametrize("semantic", [True, False])
def test_a_decoded_epoch_is_sent_with_its_embedding(
    backend: Backend[Any], epochs: np.ndarray, monkeypatch: pytest.MonkeyPatch, semantic: bool
) -> None:
    monkeypatch.setattr(module, "ResultOutlet", Kept)
    decoded = EpochDecoder(backend, DecodeSettings(session="s", semantic=semantic)).decode(0, "cat", epochs[0])
    with module.SessionOutlet("results", backend.decoder, semantic=semantic) as outlet:
        outlet.push(decoded, 0.012, 77.0)
    ((result, at),) = Kept.made.pushed
    assert (Kept.made.name, Kept.made.feature) == ("results", "semantic" if semantic else "similarity")
    expected = backend.decode(epochs[:1]).semantic if semantic else decoded.similarity
    np.testing.assert_array_equal(result.embedding, np.ravel(expected))
    assert at == 77.0
    assert (result.ordinal, result.text, result.latency, result.chance) == (0, "cat", 0.012, 0.2)
    assert result.nearest == decoded.nearest
    assert Kept.made.n == 0
