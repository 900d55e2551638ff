"""A signal whose numbers say which sample they are: a shift by one, or a mistaken channel, cannot hide in it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import Channel
from ..records import Item, Marker, Samples, SignalInfo
from .play import Performance

STEP = 100_000
"""Channel c has the value `STEP` * c + i at sample i."""
# Samples that are made at a time.
_BLOCK = 100


def ramp(  # noqa: PLR0913 (a test signal: each of them is a line of its own)
    *,
    n_channels: int = 8,
    sfreq: float = 250.0,
    seconds: float = 10.0,
    chunk: int = 1,
    name: str = "Ramp",
    source_id: str = "ramp",
    first_marker: int = 1250,
    marker_every: int = 500,
    pauses: tuple[tuple[int, float], ...] = (),
    markers: bool = True,
    reverse: bool = False,
) -> Performance:
    """The ramp, in microvolts, as doubles, with markers "0", "1", … on its samples.

    Parameters
    ----------
    first_marker, marker_every
        In samples.
    pauses
        Sample before which the source is silent, and for how many seconds.
    markers
        Whether there is a marker stream.
    reverse
        The channels in the other order, each with its own values.
    """
    n_samples = round(seconds * sfreq)
    times = np.arange(n_samples) / sfreq
    for sample, length in pauses:
        times[sample:] += length
    rows = np.arange(n_channels)[::-1] if reverse else np.arange(n_channels)
    channels = tuple(Channel(name=f"E{row}", type="eeg") for row in rows)
    info = SignalInfo(
        name=name, channels=channels, sfreq=sfreq, units=("microvolts",) * n_channels, source_id=source_id
    )
    marked = range(first_marker, n_samples, marker_every) if markers else range(0)
    return Performance(
        info=info,
        type="EEG",
        items=_items(times, rows, marked, math.lcm(chunk, _BLOCK)),
        format="double64",
        marker_name=f"{name}-markers" if markers else None,
        chunk=chunk,
    )


def _items(times: NDArray[np.float64], rows: NDArray[np.intp], marked: range, block: int) -> Iterator[Item]:
    ordinal = 0
    for start in range(0, len(times), block):
        stop = min(start + block, len(times))
        data = STEP * rows[:, None] + np.arange(start, stop, dtype=np.float64)
        yield Samples(stamps=times[start:stop], data=data, arrived=float(times[stop - 1]))
        while ordinal < len(marked) and marked[ordinal] < stop:
            stamp = float(times[marked[ordinal]])
            yield Marker(ordinal=ordinal, stamp=stamp, arrived=stamp, raw=str(ordinal).encode())
            ordinal += 1
