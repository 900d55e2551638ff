"""What ships, decoded: the mean over a picture's showings tells pictures apart, and the bundle fits the session."""

from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime import backends
from minddiffuser.runtime.demo.quick import open_shipped
from minddiffuser.runtime.demo.session import read_session
from minddiffuser.runtime.signal.chain import open_chain
from minddiffuser.streaming.decoding.decode import DecodeSettings, EpochDecoder
from minddiffuser.streaming.demo.run import MODALITIES


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
        candidates = backend.decoder.candidates
        assert candidates is not None
        assert len(candidates.names) == 24

        def ranks(*, average: bool) -> tuple[list[int], dict[str, int]]:
            """Of the concept that was shown, among all: of each epoch, and the last of each picture."""
            decoder = EpochDecoder(backend, DecodeSettings(session="demo", average=average))
            found, last = [], {}
            for ordinal, ((_, text), epoch) in enumerate(zip(marked, epochs.data, strict=True)):
                similarity = decoder.decode(ordinal, text, epoch).similarity
                assert similarity is not None
                order = np.argsort(-similarity, kind="stable")
                found.append([candidates.names[place] for place in order].index(text.split("/")[2]))
                last[text] = found[-1]
            return found, last

        singles, _ = ranks(average=False)
        means, last = ranks(average=True)
    # By chance, 5 of 24: 0.21, with a deviation of 0.04 over 96 showings.
    assert np.mean(np.array(singles) < 5) > 0.33
    assert np.mean(np.array(means) < 5) > np.mean(np.array(singles) < 5)
    # Of eight means over twelve showings, five or more by chance once in 120 times.
    assert len(last) == 8
    assert sum(rank < 5 for rank in last.values()) >= 5, last
