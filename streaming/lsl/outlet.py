"""Streams of our own: a signal with explicit stamps, and markers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import ShapeError
from ..records import SignalInfo
from .library import pylsl_library

TEXTS, NUMBERS = "string", "int32"
"""Formats of a marker stream."""


class SignalOutlet:
    """Sends a signal.

    Parameters
    ----------
    info
        What it says of itself: names, types, units and places of the channels, rate, source_id. Without a source_id
        it cannot be found again after a restart.
    type
        "EEG" or "MEG".
    format
        Of the numbers: "float32", "double64", "int16" or "int32".
    """

    def __init__(self, info: SignalInfo, *, type: str, format: str = "float32") -> None:
        pylsl = pylsl_library()
        n = len(info.channels)
        about = pylsl.StreamInfo(info.name, type, n, info.sfreq, format, info.source_id)
        _describe(about.desc().append_child("channels"), info)
        self._n_channels, self._whole = n, format.startswith("int")
        self._outlet: Any = pylsl.StreamOutlet(about)

    def push(self, data: NDArray[Any], stamps: NDArray[np.float64]) -> None:
        """Send samples now: data (n_channels, n), and the local time of each, (n,) in seconds."""
        if data.shape != (self._n_channels, len(stamps)):
            raise ShapeError(
                f"samples are {data.shape} with {len(stamps)} stamps: give ({self._n_channels}, {len(stamps)})"
            )
        if len(stamps) == 1:  # a sample at a time, at a fifth of a chunk's cost
            values = data[:, 0].astype(np.int64) if self._whole else data[:, 0]
            self._outlet.push_sample(values.tolist(), float(stamps[0]))
        elif len(stamps):
            self._outlet.push_chunk(data.T, stamps.tolist())

    def wait_for_consumers(self, timeout: float) -> bool:
        """Wait until somebody receives."""
        return bool(self._outlet.wait_for_consumers(timeout))

    def has_consumers(self) -> bool:
        """Whether somebody receives."""
        return bool(self._outlet.have_consumers())

    def close(self) -> None:
        """End the stream, at once: what was not received yet is lost."""
        self._outlet = None


class MarkerOutlet:
    """Sends markers.

    Parameters
    ----------
    format
        `TEXTS`, or `NUMBERS` for markers whose bytes are decimal digits.
    """

    def __init__(self, name: str, source_id: str, format: str = TEXTS, type: str = "Markers") -> None:
        pylsl = pylsl_library()
        self._texts = format == TEXTS
        self._outlet: Any = pylsl.StreamOutlet(pylsl.StreamInfo(name, type, 1, pylsl.IRREGULAR_RATE, format, source_id))

    def push(self, raw: bytes, stamp: float) -> None:
        """Send one now, with its local time in seconds."""
        self._outlet.push_sample([raw if self._texts else int(raw)], stamp)

    def wait_for_consumers(self, timeout: float) -> bool:
        """Wait until somebody receives."""
        return bool(self._outlet.wait_for_consumers(timeout))

    def close(self) -> None:
        """End the stream, at once: what was not received yet is lost."""
        self._outlet = None


def _describe(channels: Any, info: SignalInfo) -> None:
    """By LSL's convention; places in millimetres."""
    for channel, unit in zip(info.channels, info.units, strict=True):
        about = channels.append_child("channel")
        about.append_child_value("label", channel.name)
        about.append_child_value("type", channel.type.upper())
        if unit:
            about.append_child_value("unit", unit)
        if channel.position is not None:
            place = about.append_child("location")
            for axis, value in zip("XYZ", channel.position, strict=True):
                place.append_child_value(axis, repr(value * 1e3))
