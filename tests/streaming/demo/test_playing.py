"""The shipped session as streams: units, stamps, and every marker on its sample; and when the session is over."""

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.demo.session import DemoSession
from minddiffuser.streaming.demo.ending import EndingFeed
from minddiffuser.streaming.demo.playing import performance
from minddiffuser.streaming.intake.events import Accepted, Refused, Said
from minddiffuser.streaming.lsl.play import Player
from minddiffuser.streaming.records import Notice
from minddiffuser.streaming.session.acquisition import Arrived, FromAcquisition, Happened
from minddiffuser.streaming.session.process import Post


class Signal:
    """Stands for an outlet."""

    def __init__(self) -> None:
        self.data: list[np.ndarray] = []
        self.stamps: list[float] = []

    def push(self, data: np.ndarray, stamps: np.ndarray) -> None:
        self.data.append(data)
        self.stamps.extend(stamps)


class Markers:
    """Stands for a marker outlet."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, float]] = []

    def push(self, raw: bytes, stamp: float) -> None:
        self.sent.append((raw, stamp))


@pytest.mark.parametrize(
    ("modality", "kind", "unit", "size"), [("eeg", "eeg", "microvolts", 1e-6), ("meg", "mag", "fT", 1e-15)]
)
def test_it_is_played_as_it_was_recorded(modality: str, kind: str, unit: str, size: float) -> None:
    sfreq, n_samples = 200.0, 500
    data = size * np.random.default_rng(5).standard_normal((2, n_samples))
    session = DemoSession(
        modality=modality,
        channels=tuple(Channel(name=name, type=kind) for name in "ab"),
        sfreq=sfreq,
        data=data,
        markers=((20, "picture/0/cup"), (130, "target"), (499, "picture/1/car")),
    )
    played = performance(session, "one")
    assert played.type == modality.upper()
    assert (played.info.source_id, played.info.sfreq, played.info.units) == ("one", sfreq, (unit, unit))
    assert played.info.channels == session.channels
    signal, markers = Signal(), Markers()
    player = Player(played, signal, markers, 1000.0)
    for now in np.arange(1000.0, 1003.0, 0.01):
        player.step(float(now))
    np.testing.assert_allclose(np.concatenate(signal.data, axis=1) * size, data, rtol=1e-12)
    np.testing.assert_allclose(signal.stamps, 1000 + np.arange(n_samples) / sfreq, rtol=0, atol=1e-9)
    expected = [(text.encode(), 1000 + sample / sfreq) for sample, text in session.markers]
    assert [raw for raw, _ in markers.sent] == [raw for raw, _ in expected]
    np.testing.assert_allclose([at for _, at in markers.sent], [at for _, at in expected], rtol=0, atol=1e-9)


class Feed:
    """Stands for acquisition: gives what it is given, and remembers when it was stopped."""

    def __init__(self) -> None:
        self.post: Post | None = None
        self.stopped, self.closed = 0, 0

    def start(self, post: Post) -> None:
        self.post = post

    def stop(self) -> None:
        self.stopped += 1

    def close(self, patience: float = 20.0) -> None:
        self.closed += 1


def test_it_is_over_when_each_marker_has_its_epoch_or_a_reason() -> None:
    feed, heard, waited = Feed(), list[FromAcquisition](), list[object]()
    ending = EndingFeed(feed, 3, lambda: waited.append(feed.post))
    ending.start(heard.append)
    assert waited == [None]  # before acquisition looks for the streams
    assert feed.post is not None
    accepted, refused = (object.__new__(kind) for kind in (Accepted, Refused))
    said = happened("silent", "signal")
    feed.post(Arrived(ordinal=0, text="picture/0", at=1.0))
    feed.post(Happened(events=(accepted, said)))
    feed.post(Happened(events=(refused, said, said)))
    assert feed.stopped == 0
    feed.post(Happened(events=(accepted,)))
    assert feed.stopped == 1
    assert len(heard) == 4  # all of it went on to the session
    ending.close(2.5)
    assert feed.closed == 1


def happened(kind: str, stream: str) -> Said:
    return Said(notice=Notice(kind=kind, stream=stream, at=0.0, text=""))


def test_it_is_over_when_the_player_is_gone() -> None:
    """Nobody plays it a second time: waiting for the rest of its markers would last for ever."""
    feed = Feed()
    EndingFeed(feed, 3, lambda: None).start(lambda message: None)
    assert feed.post is not None
    feed.post(Happened(events=(happened("lost", "markers"),)))
    assert feed.stopped == 0
    feed.post(Happened(events=(happened("lost", "signal"),)))
    assert feed.stopped == 1


def test_it_can_be_ended_before() -> None:
    feed = Feed()
    EndingFeed(feed, 3, lambda: None).stop()
    assert feed.stopped == 1
