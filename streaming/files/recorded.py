"""A recording, whatever file it lies in: what its source would have given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..records import ClockOffset, SignalInfo


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of a file is wanted.

    Attributes
    ----------
    modality
        "eeg" or "meg": the type of an XDF file's stream.
    stream, markers
        Names of an XDF file's streams; None where only one fits.
    trigger
        The stimulus channel of a file that MNE reads; None for the one that puts a Neuromag's lines together, else all.
    stream_option, markers_option
        How a person names these streams, for messages.
    """

    modality: str = "eeg"
    stream: str | None = None
    markers: str | None = None
    trigger: str | None = None
    stream_option: str = "--stream NAME"
    markers_option: str = "--markers NAME"


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """A recording that was opened and not yet read.

    Attributes
    ----------
    info
        The signal.
    stamps
        (n,) float64, of the samples in seconds, on the clock of the signal.
    read
        ``read(start, stop)``: (n_channels, stop - start) float64 in the units of `info`.
    markers
        Stamp, on the clock of the markers, and bytes of each.
    offsets
        Of both clocks, by the time of their measurement; at least one of each.
    joints
        Samples before which the signal does not continue though the stamps do, and why.
    notes
        Sentences on what the file does not say, for people.
    """

    info: SignalInfo
    stamps: NDArray[np.float64]
    read: Callable[[int, int], NDArray[np.float64]]
    markers: tuple[tuple[float, bytes], ...]
    offsets: tuple[ClockOffset, ...]
    joints: tuple[tuple[int, str], ...] = ()
    notes: tuple[str, ...] = ()
