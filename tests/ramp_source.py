"""A source whose every value says what it is: channel c at sample i has the value 100000 c + i."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from minddiffuser.runtime.data.layout import Channel
from minddiffuser.streaming.records import MARKERS, SIGNAL, ClockOffset, Item, Marker, Notice, Samples, SignalInfo

SFREQ, FIRST_MARKER, STEP = 250.0, 1250, 500
CHANNEL = 100_000
# A local clock does not begin at 0.
T0 = 5000.0


def ramp_info(n_channels: int = 4, sfreq: float = SFREQ) -> SignalInfo:
    channels = tuple(Channel(name=f"C{number}", type="eeg") for number in range(n_channels))
    return SignalInfo(name="ramp", channels=channels, sfreq=sfreq, units=("V",) * n_channels, source_id="ramp")


def ramp(numbers: np.ndarray, n_channels: int = 4) -> np.ndarray:
    """Values of samples, (n_channels, n)."""
    return CHANNEL * np.arange(n_channels)[:, None] + np.asarray(numbers, np.float64)[None, :]


def ramp_items(
    seconds: float, chunks: Sequence[int] = (25,), n_channels: int = 4, sfreq: float = SFREQ, measured: bool = True
) -> Iterator[Item]:
    """Items of a ramp in the order in which they come: chunks of these sizes in turn, markers, offsets every 2 s."""
    n_samples, at, turn, marker = round(seconds * sfreq), 0, 0, FIRST_MARKER
    offset_due = T0
    while at < n_samples:
        n = min(chunks[turn % len(chunks)], n_samples - at)
        turn += 1
        numbers = np.arange(at, at + n)
        arrived = T0 + (at + n - 1) / sfreq + 0.001
        if measured and arrived >= offset_due:
            yield from (
                ClockOffset(stream=name, at=arrived, offset=0.0, uncertainty=1e-4) for name in (SIGNAL, MARKERS)
            )
            offset_due = arrived + 2.0
        yield Samples(stamps=T0 + numbers / sfreq, data=ramp(numbers, n_channels), arrived=arrived)
        at += n
        while marker < at:
            number = (marker - FIRST_MARKER) // STEP
            yield Marker(ordinal=number, stamp=T0 + marker / sfreq, arrived=arrived, raw=b"m%d" % number)
            marker += STEP
    yield Notice(kind="ended", stream=SIGNAL, at=T0 + n_samples / sfreq, text="the recording is over")


class RampSource:
    """The items of a ramp, one chunk at a time."""

    def __init__(self, seconds: float, chunks: Sequence[int] = (25,)) -> None:
        self._items = ramp_items(seconds, chunks)
        self.closed = False

    def open(self) -> SignalInfo:
        return ramp_info()

    def poll(self, timeout: float) -> Sequence[Item]:
        return [item for item in [next(self._items, None)] if item is not None]

    def close(self) -> None:
        self.closed = True
