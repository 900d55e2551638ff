from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.backends.base import Backend
from minddiffuser.streaming.decoding.decode import DecodeSettings, EpochDecoder, Undecodable

SETTINGS = DecodeSettings(session="today")


def test_an_epoch_is_decoded_as_the_decoders_formula_says(
    backend: Backend[Any], epochs: np.ndarray, tmp_path: Path
) -> None:
    from live_bundle import write_live_checkpoint

    expected = write_live_checkpoint(tmp_path / "checkpoint").expected(epochs[:3])
    decoder = EpochDecoder(backend, SETTINGS)
    for row in range(3):
        found = decoder.decode(row, "cat", epochs[row])
        similarity = expected["similarity"][row]
        np.testing.assert_allclose(found.similarity, similarity, atol=1e-5)
        np.testing.assert_allclose(found.features.structure[0], expected["structure"][row], atol=1e-3)
        names = backend.decoder.candidates.names
        assert [name for name, _ in found.nearest] == sorted(names, key=lambda name: -similarity[names.index(name)])
        assert found.margin == pytest.approx(np.sort(similarity)[-1] - np.sort(similarity)[-2], abs=1e-5)
        assert found.chance == (1 / 5, 1.0)
        assert found.trial_id == f"today/{row}"
        assert found.hashes()["response"] == hashlib.sha256(epochs[row].tobytes()).hexdigest()


def test_the_control_counts_numbers_that_a_table_knows(backend: Backend[Any], epochs: np.ndarray) -> None:
    names = backend.decoder.candidates.names
    decoder = EpochDecoder(backend, DecodeSettings(session="today", concepts={"7": names[0], "8": names[1]}))
    for row, text in enumerate(("7", "8.0", "9")):
        decoder.after(decoder.decode(row, text, epochs[row]))
    score = decoder.scores()[0]
    assert (score.n, score.n_unnamed) == (2, 1)
    assert score.shuffled is not None


def test_confidence_is_known_after_some_epochs_and_near_a_half_for_noise(
    backend: Backend[Any], epochs: np.ndarray
) -> None:
    decoder, found = EpochDecoder(backend, SETTINGS), []
    for row, epoch in enumerate(epochs):
        decoded = decoder.decode(row, "cat", epoch)
        decoder.after(decoded)
        found.append(decoded.confidence)
    # Two copies of each earlier epoch, twenty are needed.
    assert [row for row, value in enumerate(found) if value is None] == list(range(10))
    known = [value for value in found if value is not None]
    # Of 30 ranks that are evenly spread the mean has a deviation of 0.29 / sqrt(30) = 0.053.
    assert 0.5 - 4 * 0.053 < np.mean(known) < 0.5 + 4 * 0.053


def test_the_same_epochs_give_the_same_bits_again(backend: Backend[Any], epochs: np.ndarray) -> None:
    runs = []
    for _ in range(2):
        decoder, run = EpochDecoder(backend, SETTINGS), []
        for row, epoch in enumerate(epochs[:15]):
            decoded = decoder.decode(row, "cat", epoch)
            decoder.after(decoded)
            run.append((decoded.hashes(), decoded.confidence, decoded.nearest))
        runs.append(run)
    assert runs[0] == runs[1]


def test_repetitions_are_averaged_by_event(backend: Backend[Any], epochs: np.ndarray) -> None:
    decoder = EpochDecoder(backend, DecodeSettings(session="today", average=True))
    events = ["cat", "dog", "cat", "cat", "dog"]
    found = [decoder.decode(row, text, epochs[row]) for row, text in enumerate(events)]
    assert [one.n_averaged for one in found] == [1, 1, 2, 3, 2]
    assert [one.trial_id for one in found] == [f"today/mean/{text}" for text in events]
    mean = epochs[[0, 2, 3]].astype(np.float64).mean(axis=0).astype(np.float32)
    np.testing.assert_array_equal(found[3].response, mean)
    np.testing.assert_array_equal(found[4].response, epochs[[1, 4]].astype(np.float64).mean(axis=0).astype(np.float32))


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "1 of 123 values are NaN or infinite, in channel O1"), (np.inf, "NaN or infinite")]
)
def test_an_epoch_with_holes_is_rejected(backend: Backend[Any], epochs: np.ndarray, value: float, reason: str) -> None:
    epochs[0, 0, 7] = value
    with pytest.raises(Undecodable, match=reason) as caught:
        EpochDecoder(backend, SETTINGS).decode(0, "cat", epochs[0])
    assert caught.value.state == "rejected"


def test_an_epoch_in_other_units_is_rejected(backend: Backend[Any], epochs: np.ndarray) -> None:
    with pytest.raises(Undecodable, match="not on the scale of the training responses") as caught:
        EpochDecoder(backend, SETTINGS).decode(0, "cat", 1e6 * epochs[0])
    assert caught.value.state == "rejected"


class Faulty:
    """A backend whose decoder does what a test says."""

    def __init__(self, backend: Backend[Any], change: Any) -> None:
        self._backend, self._change, self.decoder = backend, change, backend.decoder

    def decode(self, responses: np.ndarray, *, semantic: bool = True) -> Any:
        return self._change(self._backend.decode(responses, semantic=semantic))


def test_a_decoder_that_raises_costs_one_marker(backend: Backend[Any], epochs: np.ndarray) -> None:
    def fail(_decoded: Any) -> Any:
        raise RuntimeError("no such layer")

    with pytest.raises(Undecodable, match=r"the decoder failed \(RuntimeError: no such layer\)") as caught:
        EpochDecoder(Faulty(backend, fail), SETTINGS).decode(0, "cat", epochs[0])  # type: ignore[arg-type]
    assert caught.value.state == "refused"


def test_a_decoder_that_gives_nan_costs_one_marker(backend: Backend[Any], epochs: np.ndarray) -> None:
    def spoil(decoded: Any) -> Any:
        decoded.latent[0, 0, 0, 0] = np.nan
        return decoded

    with pytest.raises(Undecodable, match=r"holds NaN or infinite values \(latent\)") as caught:
        EpochDecoder(Faulty(backend, spoil), SETTINGS).decode(0, "cat", epochs[0])  # type: ignore[arg-type]
    assert caught.value.state == "refused"
