"""What ships, decoded: the growing mean over a picture's showings tells pictures apart, and the bundle is the session's."""

from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime import backends
from minddiffuser.runtime.demo.quick import open_shipped
from minddiffuser.runtime.demo.session import read_session
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.streaming.decoding.decode import DecodeSettings, EpochDecoder
from minddiffuser.streaming.demo.run import EVENTS, MODALITIES
from minddiffuser.streaming.intake.markers import patterns


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_means_over_all_showings_name_what_was_shown(
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
        decoder = EpochDecoder(backend, DecodeSettings(session="demo", average=True))
        ranks: dict[str, int] = {}
        for ordinal, ((_, text), epoch) in enumerate(zip(marked, epochs.data, strict=True)):
            decoded = decoder.decode(ordinal, text, epoch)
            assert decoded.similarity is not None
            order = np.argsort(-decoded.similarity, kind="stable")
            names = backend.decoder.candidates
            assert names is not None
            ranks[text] = [names.names[place] for place in order].index(text.split("/")[2])  # of the last mean
    assert len(ranks) == 8
    n_candidates = len(names.names)
    # Of eight pictures, so many among the first five of 24 by chance: 1.7; six or more once in 500 times.
    assert n_candidates == 24
    assert sum(rank < 5 for rank in ranks.values()) >= 6, ranks
