"""The clock of one stream: its offsets from the local clock as they are measured, and for when they hold."""

from __future__ import annotations

import math
from bisect import insort
from typing import NamedTuple

from ..records import ClockOffset

# Kept measurements: hours at one every few seconds.
_MOST = 4096
# A change between two measurements that no drift makes: seconds beyond their uncertainties.
_JUMP = 0.02


class Measured(NamedTuple):
    """An offset, when it was measured, and how uncertain it is; seconds."""

    at: float
    offset: float
    uncertainty: float


class Clock:
    """Offsets by the time at which they were measured; the last one before a moment holds for it."""

    def __init__(self) -> None:
        self._measured: list[Measured] = []
        self._jumps: list[tuple[float, float]] = []
        self.trusted_after = -math.inf

    @property
    def newest(self) -> Measured | None:
        """The last measurement, or None."""
        return self._measured[-1] if self._measured else None

    def add(self, item: ClockOffset) -> float | None:
        """Take a measurement; the change since the one before where it is a jump, None otherwise."""
        if not (math.isfinite(item.at) and math.isfinite(item.offset)):
            return None
        uncertainty = item.uncertainty if item.uncertainty >= 0 else math.inf
        before = self._measured[-1] if self._measured else None
        insort(self._measured, Measured(item.at, item.offset, uncertainty))
        del self._measured[:-_MOST]
        if before is None or item.at < before.at:
            return None
        change = item.offset - before.offset
        unsure = sum(value for value in (before.uncertainty, uncertainty) if math.isfinite(value))
        if abs(change) <= _JUMP + unsure:
            return None
        if item.at > self.trusted_after >= before.at:
            return None  # it was known to have jumped, and nothing was placed by the old offset since
        self._jumps.append((before.at, item.at))
        del self._jumps[:-_MOST]
        return change

    def distrust(self, at: float) -> None:
        """From the local time `at` on, only offsets hold that are measured later."""
        self.trusted_after = max(self.trusted_after, at)

    def at(self, time: float, after: float, until: float = math.inf) -> Measured | None:
        """The measurement for a local time, of those after `after` and up to `until`; None where there is none."""
        found = None
        for measured in reversed(self._measured):
            if measured.at > until:
                continue
            if measured.at < after:
                break
            found = measured
            if measured.at <= time:
                break
        return found

    def of_stamp(self, stamp: float, after: float) -> Measured | None:
        """As :meth:`at`, for the time that a stamp of this stream stands for."""
        found = None
        for measured in reversed(self._measured):
            if measured.at < after:
                break
            found = measured
            if measured.at <= stamp + measured.offset:
                break
        return found

    def has_jumped(self, measured: Measured, time: float) -> bool:
        """Whether the offset was found to have jumped when it was next measured, and the time is later than before."""
        return any(first == measured.at and first <= time for first, _ in self._jumps)

    def jumped_around(self, time: float) -> bool:
        """Whether the offset was found to have jumped between the measurements before and behind a local time."""
        return any(first <= time < last for first, last in self._jumps)
