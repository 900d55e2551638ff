"""A recording, to be played."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..files.recorded import Recorded
from ..records import MARKERS, SIGNAL, Item, Marker, Samples
from .play import Performance

# Samples that are read at a time, in seconds.
_BLOCK = 1.0
_MEG = ("mag", "grad")


def performance(
    recorded: Recorded,
    *,
    name: str,
    source_id: str,
    format: str = "double64",
    marker_format: str | None = "string",
    chunk: int = 1,
    speed: float = 1.0,
) -> Performance:
    """What plays a recording.

    Parameters
    ----------
    marker_format
        None for no marker stream.
    """
    kinds = {channel.type for channel in recorded.info.channels}
    return Performance(
        info=replace(recorded.info, name=name, source_id=source_id),
        type="MEG" if kinds & set(_MEG) else "EEG",
        items=items_of(recorded, chunk),
        format=format,
        marker_format=marker_format or "string",
        marker_name=None if marker_format is None else f"{name}-markers",
        chunk=chunk,
        speed=speed,
    )


def items_of(recorded: Recorded, chunk: int = 1) -> Iterator[Item]:
    """Samples in blocks of whole chunks, each followed by the markers of its time, all on the clock of the signal."""
    size = max(1, round(_BLOCK * recorded.info.sfreq / chunk)) * chunk
    marks = _markers_to_signal(recorded)
    done = 0
    for start in range(0, len(recorded.stamps), size):
        stamps = recorded.stamps[start : start + size]
        yield Samples(stamps=stamps, data=recorded.read(start, start + len(stamps)), arrived=float(stamps[-1]))
        while done < len(marks) and marks[done][0] <= stamps[-1]:
            yield _marker(done, *marks[done])
            done += 1
    for ordinal in range(done, len(marks)):
        yield _marker(ordinal, *marks[ordinal])


def _marker(ordinal: int, stamp: float, raw: bytes) -> Marker:
    return Marker(ordinal=ordinal, stamp=stamp, arrived=stamp, raw=raw)


def _markers_to_signal(recorded: Recorded) -> list[tuple[float, bytes]]:
    """The markers by the clock of the signal, in its order; between measurements the clocks drift evenly."""
    if not recorded.markers:
        return []
    stamps = np.array([stamp for stamp, _ in recorded.markers])
    local = stamps + _offsets(recorded, MARKERS, stamps)
    onto = local - _offsets(recorded, SIGNAL, local, given_locally=True)
    pairs = zip(onto.tolist(), (raw for _, raw in recorded.markers), strict=True)
    return sorted(pairs, key=lambda pair: pair[0])


def _offsets(
    recorded: Recorded, stream: str, times: NDArray[np.float64], *, given_locally: bool = False
) -> NDArray[np.float64]:
    """A clock's offset at stamps of its own, or at local times."""
    measured = sorted((item for item in recorded.offsets if item.stream == stream), key=lambda item: item.at)
    values = np.array([item.offset for item in measured])
    at = np.array([item.at for item in measured]) - (0.0 if given_locally else values)
    found: NDArray[np.float64] = np.interp(times, at, values)
    return found
