"""The clock of one stream: its offsets from the local clock as they are measured, and for when they hold."""

from __future__ import annotations

import math
from bisect import insort

from ..records import ClockOffset

# Kept measurements: hours at one every few seconds.
_MOST = 4096
# A change between two measurements that no drift makes: seconds beyond their uncertainties.
_JUMP = 0.02


class Clock:
    """Offsets by the time at which they were measured; the last one before a moment holds for it."""

    def __init__(self) -> None:
        self._measured: list[tuple[float, float, float]] = []
        self._jumps: list[tuple[float, float]] = []
        self.trusted_after = -math.inf

    @property
    def newest(self) -> tuple[float, float] | None:
        """The last offset and its uncertainty, or None."""
        return self._measured[-1][1:] if self._measured else None

    def add(self, item: ClockOffset) -> float | None:
        """Take a measurement; the change since the one before where it is a jump, None otherwise."""
        if not (math.isfinite(item.at) and math.isfinite(item.offset)):
            return None
        uncertainty = item.uncertainty if item.uncertainty >= 0 else math.inf
        before = self._measured[-1] if self._measured else None
        insort(self._measured, (item.at, item.offset, uncertainty))
        del self._measured[:-_MOST]
        if before is None or item.at < before[0]:
            return None
        change = item.offset - before[1]
        unsure = sum(value for value in (before[2], uncertainty) if math.isfinite(value))
        if abs(change) <= _JUMP + unsure:
            return None
        if item.at > self.trusted_after >= before[0]:
            return None  # it was known to have jumped, and nothing was placed by the old offset since
        self._jumps.append((before[0], item.at))
        return change

    def distrust(self, at: float) -> None:
        """From the local time `at` on, only offsets hold that are measured later."""
        self.trusted_after = max(self.trusted_after, at)

    def at(self, time: float, after: float) -> tuple[float, float] | None:
        """Offset and uncertainty for a local time, of those that were measured after `after`; None where none was."""
        found = None
        for measured in reversed(self._measured):
            if measured[0] <= after:
                break
            found = measured
            if measured[0] <= time:
                break
        return None if found is None else found[1:]

    def of_stamp(self, stamp: float, after: float) -> tuple[float, float] | None:
        """As :meth:`at`, for the time that a stamp of this stream stands for."""
        found = None
        for measured in reversed(self._measured):
            if measured[0] <= after:
                break
            found = measured
            if measured[0] <= stamp + measured[1]:
                break
        return None if found is None else found[1:]

    def jumped_about(self, time: float) -> bool:
        """Whether the offset jumped between the two measurements around a time, unnoticed until the second."""
        return any(first <= time <= last for first, last in self._jumps)
