"""A recording as a source: its own schedule, as fast as asked, in real time, and shifted to now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.streaming.files.recorded import Recorded
from minddiffuser.streaming.records import MARKERS, SIGNAL, ClockOffset, Item, Marker, Notice, Samples, SignalInfo
from minddiffuser.streaming.sources import open_source
from minddiffuser.streaming.sources.base import Wanted
from minddiffuser.streaming.sources.replay import Replay, steps_of

N, SFREQ = 100, 100.0


def recorded(**changed: Any) -> Recorded:
    """A second of signal on a clock that is 500 s behind, and three markers on one that is 300 s behind."""
    about: dict[str, Any] = {
        "info": SignalInfo(name="x", channels=(Channel(name="Cz", type="eeg"),), sfreq=SFREQ, units=("V",)),
        "stamps": 10 + np.arange(N) / SFREQ,
        "read": lambda start, stop: np.arange(start, stop, dtype=float)[None],
        "markers": ((210.105, b"a"), (210.905, b"c"), (210.5049, b"b")),
        "offsets": (
            ClockOffset(stream=SIGNAL, at=510.2, offset=500.0, uncertainty=0.0),
            ClockOffset(stream=MARKERS, at=510.3, offset=300.0, uncertainty=0.0),
            ClockOffset(stream=MARKERS, at=510.8, offset=300.001, uncertainty=0.0),
        ),
    }
    return Recorded(**{**about, **changed})


@dataclass
class Clock:
    """One that only its sleeper moves."""

    now: float = 7000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def all_of(source: Replay, clock: Clock | None = None, timeout: float = 0.25) -> list[tuple[float, Item]]:
    found: list[tuple[float, Item]] = []
    source.open()
    while True:
        for item in source.poll(timeout):
            found.append((source.now if clock is None else clock(), item))
            if isinstance(item, Notice) and item.kind == "ended":
                assert source.poll(timeout) == []
                source.close()
                return found


def test_everything_comes_once_and_in_its_order() -> None:
    found = [item for _, item in all_of(Replay(recorded().info, steps_of(recorded(), 0.1), speed=None))]
    chunks = [item for item in found if isinstance(item, Samples)]
    assert len(chunks) == 10
    np.testing.assert_array_equal(np.concatenate([chunk.data for chunk in chunks], axis=1), np.arange(N)[None])
    np.testing.assert_array_equal(np.concatenate([chunk.stamps for chunk in chunks]), recorded().stamps)
    markers = [item for item in found if isinstance(item, Marker)]
    assert [(marker.ordinal, marker.raw) for marker in markers] == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert [marker.arrived for marker in markers] == pytest.approx([510.105, 510.5049, 510.906])
    assert [marker.stamp for marker in markers] == [210.105, 210.5049, 210.905]
    arrived = [item.arrived if isinstance(item, Samples | Marker) else item.at for item in found]
    first_offsets = [item for item in found[:2] if isinstance(item, ClockOffset)]
    assert len(first_offsets) == 2  # clocks are known before the signal begins
    assert arrived[2:] == sorted(arrived[2:])
    assert chunks[0].arrived == pytest.approx(510.09)


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_it_comes_at_its_pace_on_the_clock_of_today(speed: float) -> None:
    clock = Clock()
    source = Replay(recorded().info, steps_of(recorded(), 0.1), speed=speed, clock=clock, sleep=clock.sleep)
    found = all_of(source, clock)
    begin = 510.0
    for moment, item in found:
        if isinstance(item, Samples):
            assert item.arrived == pytest.approx(7000 + float(item.stamps[-1]) + 500 - begin)
            assert moment == pytest.approx(7000 + (item.arrived - 7000) / speed)
        if isinstance(item, ClockOffset) and item.stream == SIGNAL:
            assert item.offset == pytest.approx(500 + 7000 - begin)
    assert clock.now == pytest.approx(7000 + 0.99 / speed)


def test_a_poll_waits_no_longer_than_it_may() -> None:
    clock = Clock()
    source = Replay(recorded().info, steps_of(recorded(), 0.5), speed=1.0, clock=clock, sleep=clock.sleep)
    source.open()
    source.poll(0.0)
    before = clock.now
    assert [item for item in source.poll(0.02) if isinstance(item, Samples)] == []
    assert clock.now == pytest.approx(before + 0.02)


def test_where_two_recordings_were_joined_it_says_so() -> None:
    joined = recorded(joints=((33, "two recordings were joined"),))
    found = [item for _, item in all_of(Replay(joined.info, steps_of(joined, 0.1), speed=None))]
    place = next(index for index, item in enumerate(found) if isinstance(item, Notice))
    assert found[place].kind == "dropped"  # type: ignore[union-attr]
    behind = next(item for item in found[place:] if isinstance(item, Samples))
    assert behind.stamps[0] == recorded().stamps[33]


def xdf_like(folder: Path) -> Path:
    import mne

    raw = mne.io.RawArray(1e-6 * np.arange(600.0).reshape(2, 300), mne.create_info(["Cz", "Oz"], 100.0, "eeg"))
    raw.set_annotations(mne.Annotations([0.5, 1.504], [0.0, 0.2], ["go", "stop"]))
    path = folder / "a, b_raw.fif"
    raw.save(path, verbose="error")
    return path


def test_the_source_s_text_names_the_file_and_its_options(tmp_path: Path) -> None:
    source = open_source(f"replay:{xdf_like(tmp_path)},speed=max,chunk=0.5", Wanted(modality="eeg"))
    assert isinstance(source, Replay)
    found = [item for _, item in all_of(source)]
    assert [len(item.stamps) for item in found if isinstance(item, Samples)] == [50] * 6
    assert [(item.stamp, item.raw) for item in found if isinstance(item, Marker)] == [(0.5, b"go"), (1.5, b"stop")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("replay:", "the source is replay: without a file"),
        ("replay:x.fif,speed=0", "speed of the replay is '0': give a factor, or max, above 0"),
        ("replay:x.fif,chunk=later", "chunk of the replay is 'later': give seconds of signal, above 0"),
        ("replay:nowhere.fif", "nowhere.fif does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises((InputError, FileError), match=message):
        open_source(text, Wanted(modality="eeg"))
