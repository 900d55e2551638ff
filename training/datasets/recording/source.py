"""A continuous recording, whatever file it lies in: channels, rate, markers, and its samples in V or T."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.layout import Channel

NOWHERE = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """One file of a subject, opened and not yet read.

    Attributes
    ----------
    name
        The file's, without its ending.
    path, files
        What was given, and all files that belong to it.
    channels
        Those of a type that epochs may have, in the file's order.
    bad
        Names of channels that the file marks as bad.
    sfreq
        Samples per second.
    segments
        First sample and the one behind the last of each stretch without a gap.
    marks
        Sample, or `NOWHERE` for one in a gap, and text of each marker and trigger.
    spoilt
        First sample and the one behind the last of each part that the file marks as bad.
    at
        The sample at a time in seconds from the recording's start, or `NOWHERE`.
    read
        ``read(rows, start, stop)``: samples of some of the channels, (n, stop - start) float64 in V, T or T/m.
    """

    name: str
    path: Path
    files: tuple[Path, ...]
    channels: tuple[Channel, ...]
    bad: frozenset[str]
    sfreq: float
    segments: tuple[tuple[int, int], ...]
    marks: tuple[tuple[int, str], ...]
    spoilt: tuple[tuple[int, int], ...]
    at: Callable[[float], int]
    read: Callable[[Sequence[int], int, int], NDArray[np.float64]]
