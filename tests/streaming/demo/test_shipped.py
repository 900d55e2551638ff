"""What ships, decoded: single showings name what was shown better than chance, and the bundle fits the session."""

from itertools import permutations
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

# Pictures of the session, and concepts on the dashboard's list.
N_SHOWN, N_FIRST = 8, 5


@pytest.mark.parametrize(
    "modality", [pytest.param(name, marks=pytest.mark.long if name == "meg" else ()) for name in MODALITIES]
)
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
        hits = np.zeros((N_SHOWN, len(candidates.names)), np.int64)
        shown = np.zeros(N_SHOWN, np.int64)
        for ordinal, ((_, text), epoch) in enumerate(zip(marked, epochs.data, strict=True)):
            similarity = decoder.decode(ordinal, text, epoch).similarity
            assert similarity is not None
            _, picture, concept, _ = text.split("/")
            shown[int(picture)] = candidates.names.index(concept)
            hits[int(picture), np.argsort(-similarity, kind="stable")[:N_FIRST]] += 1
    right = hits[np.arange(N_SHOWN), shown].sum()
    # Binomial: a decoder that guesses is as often right once in twenty sessions at most.
    guessing = stats.binomtest(int(right), len(marked), N_FIRST / len(candidates.names), alternative="greater")
    assert guessing.pvalue < 0.05, right
    # Exact: so is one that prefers some concepts, whatever is shown, if the pictures exchange theirs in all ways.
    exchanged = shown[np.array(list(permutations(range(N_SHOWN))))]
    assert np.mean(hits[np.arange(N_SHOWN), exchanged].sum(axis=1) >= right) < 0.05, right
