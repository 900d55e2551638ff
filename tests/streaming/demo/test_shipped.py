"""What ships, decoded: single showings name what was shown better than chance, and the bundle fits the session."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from minddiffuser.runtime import backends
from minddiffuser.runtime.demo.quick import open_shipped
from minddiffuser.runtime.demo.session import read_session
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.streaming.decoding.decode import DecodeSettings, EpochDecoder
from minddiffuser.streaming.demo.run import MODALITIES

# The dashboard's list of concepts.
N_FIRST = 5


@pytest.mark.parametrize("modality", MODALITIES)
def test_single_showings_name_what_was_shown_better_than_chance(
    modality: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path)
    folder = open_shipped(lambda: tmp_path / "instead", print, modality)
    session = read_session(folder / "session")
    assert session.modality == modality
    with backends.open(folder / "bundle", backends.Options(backend="ort", threads=1)) as backend:
        backend.start()
        layout = backend.decoder.training.layout
        assert layout is not None
        assert layout.signal is not None
        assert layout.channels is not None
        assert [one.name for one in layout.channels] == [one.name for one in session.channels]
        chain = open_chain(layout.signal, session.channels, session.sfreq)
        marked = [(sample, text) for sample, text in session.markers if text != "target"]
        epochs = chain.epochs(session.data, [sample for sample, _ in marked])
        assert len(epochs.data) == len(marked) == 96
        assert not epochs.in_warm_up.any()
        candidates = backend.decoder.candidates
        assert candidates is not None
        assert len(candidates.names) == 24
        decoder = EpochDecoder(backend, DecodeSettings(session="demo", average=False))
        n_hits = 0
        for ordinal, ((_, text), epoch) in enumerate(zip(marked, epochs.data, strict=True)):
            similarity = decoder.decode(ordinal, text, epoch).similarity
            assert similarity is not None
            first = [candidates.names[place] for place in np.argsort(-similarity, kind="stable")[:N_FIRST]]
            n_hits += text.split("/")[2] in first
    # Its chance level is that of a decoder that guesses: 28 of 96 are needed.
    by_chance = stats.binomtest(n_hits, len(marked), N_FIRST / len(candidates.names), alternative="greater")
    assert by_chance.pvalue < 0.05, n_hits
