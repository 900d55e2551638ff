"""A continuous recording, whatever file it lies in: channels, rate, markers, and its samples in V or T."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.layout import Channel
from ....runtime.errors import InputError

NOWHERE = -1
# Name of a unit, without capitals and spaces -> its size in V, T or T/m.
_VOLTS = {"v": 1.0, "volt": 1.0, "mv": 1e-3, "millivolt": 1e-3, "uv": 1e-6, "microvolt": 1e-6, "nv": 1e-9}
_TESLA = {"t": 1.0, "tesla": 1.0, "nt": 1e-9, "pt": 1e-12, "ft": 1e-15, "t/m": 1.0, "ft/cm": 1e-13, "pt/cm": 1e-10}
UNITS = {**_VOLTS, **_TESLA}


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


def unit_size(name: str) -> float | None:
    """How large a unit is in V, T or T/m: 1e-6 for "uV", "µV" and "microvolts"; None for one that is not known."""
    plain = name.strip().lower().replace("µ", "u").replace("μ", "u").replace(" ", "")
    return UNITS.get(plain, UNITS.get(plain.removesuffix("s")))


def given_unit(name: str) -> float:
    """As :func:`unit_size`, of an option.

    Raises
    ------
    InputError
        It is not known.
    """
    size = unit_size(name)
    if size is None:
        raise InputError(f"the unit {name!r} is unknown: choose one of V, mV, uV, nV, T, nT, pT, fT, T/m, fT/cm")
    return size
