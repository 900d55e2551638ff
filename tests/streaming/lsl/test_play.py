"""The player without a network: what is sent, when, and with which stamps."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.errors import InputError
from minddiffuser.streaming.lsl.play import Performance, Player
from minddiffuser.streaming.lsl.ramp import STEP, ramp
from minddiffuser.streaming.records import Item, Marker, Samples, SignalInfo

START = 5000.0
INFO = SignalInfo(
    name="A",
    channels=(Channel(name="E0", type="eeg"), Channel(name="E1", type="eeg")),
    sfreq=100.0,
    units=("uV", "uV"),
)


class Sent:
    """Both outlets: notes what was pushed, and at which time of the test."""

    def __init__(self) -> None:
        self.at = 0.0
        self.samples: list[tuple[float, np.ndarray, np.ndarray]] = []
        self.markers: list[tuple[float, float, bytes]] = []

    def push(self, what: np.ndarray | bytes, stamps: np.ndarray | float) -> None:
        if isinstance(what, bytes):
            self.markers.append((self.at, float(stamps), what))
        else:
            self.samples.append((self.at, what, np.asarray(stamps)))


def played(performance: Performance) -> tuple[Player, Sent]:
    sent = Sent()
    player = Player(performance, sent, sent, START)
    while (due := player.due()) < float("inf"):
        sent.at = due
        player.step(due)
    return player, sent


@pytest.mark.parametrize("chunk", [1, 7])
@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_each_sample_is_sent_when_the_last_of_its_chunk_has_come(chunk: int, speed: float) -> None:
    performance = ramp(n_channels=2, sfreq=100.0, seconds=3, chunk=chunk, first_marker=10, marker_every=100)
    player, sent = played(Performance(**{**vars(performance), "speed": speed}))
    data = np.concatenate([one for _, one, _ in sent.samples], axis=1)
    stamps = np.concatenate([one for _, _, one in sent.samples])
    np.testing.assert_array_equal(data, STEP * np.arange(2)[:, None] + np.arange(300.0))
    np.testing.assert_allclose(stamps, START + np.arange(300) / 100, rtol=0, atol=1e-9)
    for at, _, own in sent.samples:
        assert at == pytest.approx(START + (own[-1] - START) / speed, abs=1e-9)
    assert [raw for _, _, raw in sent.markers] == [b"0", b"1", b"2"]
    np.testing.assert_allclose([stamp for _, stamp, _ in sent.markers], START + np.array([0.1, 1.1, 2.1]), atol=1e-9)
    np.testing.assert_allclose([at for at, _, _ in sent.markers], START + np.array([0.1, 1.1, 2.1]) / speed, atol=1e-9)
    assert (player.n_samples, player.n_markers) == (300, 3)


def test_a_pause_of_the_source_is_one_of_the_stream() -> None:
    _, sent = played(ramp(n_channels=1, sfreq=100.0, seconds=2, pauses=((50, 1.0),), markers=False))
    stamps = np.concatenate([one for _, _, one in sent.samples])
    assert np.diff(stamps)[49] == pytest.approx(1.01, abs=1e-9)
    assert np.delete(np.diff(stamps), 49) == pytest.approx(0.01, abs=1e-9)


@given(
    blocks=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    times=st.lists(st.floats(-0.5, 3.0), max_size=6),
    late=st.floats(0.0, 1.5),
)
def test_markers_keep_their_moment_wherever_they_stand(blocks: list[int], times: list[float], late: float) -> None:
    """Recorded up to `late` seconds after their samples, they are sent as if they had been there in time."""

    def items() -> Iterator[Item]:
        start, left = 0, sorted(range(len(times)), key=times.__getitem__)
        for n in blocks:
            stamps = 100.0 + np.arange(start, start + n) / 100
            yield Samples(stamps=stamps, data=np.zeros((2, n)), arrived=float(stamps[-1]))
            start += n
            while left and 100.0 + times[left[0]] + late <= stamps[-1]:
                yield marker(left.pop(0))
        yield from map(marker, left)

    def marker(ordinal: int) -> Marker:
        stamp = 100.0 + times[ordinal]
        return Marker(ordinal=ordinal, stamp=stamp, arrived=stamp + late, raw=str(ordinal).encode())

    player, sent = played(Performance(info=INFO, type="EEG", items=items(), chunk=4))
    assert player.n_samples == sum(blocks)
    assert sorted(raw for _, _, raw in sent.markers) == sorted(str(k).encode() for k in range(len(times)))
    for at, stamp, raw in sent.markers:
        assert stamp == pytest.approx(START + times[int(raw)], abs=1e-9)
        assert at == pytest.approx(max(stamp, START + min(0.0, *times)), abs=1e-9) or stamp < START


def test_a_chunk_or_speed_of_nothing_is_refused() -> None:
    for wrong in ({"chunk": 0}, {"speed": 0.0}, {"speed": float("nan")}):
        with pytest.raises(InputError, match="give 1 or more"):
            Performance(info=INFO, type="EEG", items=(), **wrong)
