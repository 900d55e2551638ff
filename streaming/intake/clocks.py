"""The clock of one stream: its offsets from the local clock as they are measured, and for when they hold."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from typing import NamedTuple

from ..records import ClockOffset

# Kept measurements: hours at one every few seconds; and kept restarts of the sender.
_MOST, _MOST_RESTARTS = 4096, 64
# A change between two measurements that no drift makes: seconds beyond their uncertainties.
_JUMP = 0.02


class Measured(NamedTuple):
    """An offset, when it was measured, and how uncertain it is; seconds."""

    at: float
    offset: float
    uncertainty: float


class Clock:
    """Offsets by the time at which they were measured; the last one before a moment holds for it.

    Attributes
    ----------
    trusted_after
        Local time after which an offset has to be measured to hold for what comes now.
    """

    def __init__(self) -> None:
        self._measured: list[Measured] = []
        self._jumps: list[tuple[float, float]] = []
        self._restarts: list[float] = []
        self._is_another = False  # and nothing was measured of it yet
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
        was_another, self._is_another = self._is_another, False
        if was_another and (before is None or item.at > before.at):
            # Measured while the sender was being connected, before that was said: it is of the new clock.
            self.trusted_after = self._restarts[-1] = min(self.trusted_after, item.at)
            self._restarts.sort()
        insort(self._measured, Measured(item.at, item.offset, uncertainty))
        del self._measured[:-_MOST]
        if before is None or item.at < before.at or was_another:
            return None
        change = item.offset - before.offset
        unsure = sum(value for value in (before.uncertainty, uncertainty) if math.isfinite(value))
        if abs(change) <= _JUMP + unsure:
            return None
        self._jumps.append((before.at, item.at))
        del self._jumps[:-_MOST]
        return change

    def distrust(self, at: float) -> None:
        """The sender is another one, as is said at the local time `at`: offsets hold that are given from now on."""
        self.trusted_after = max(self.trusted_after, at)
        self._is_another = True
        insort(self._restarts, at)
        del self._restarts[:-_MOST_RESTARTS]

    def until(self, time: float) -> float:
        """Before when an offset must be measured to hold for what came at `time`; inf after the last restart."""
        place = bisect_right(self._restarts, time)
        return self._restarts[place] if place < len(self._restarts) else math.inf

    def at(self, time: float, after: float, until: float = math.inf) -> Measured | None:
        """The measurement for a local time, of those from `after` on and before `until`; None where there is none."""
        found = None
        for measured in reversed(self._measured):
            if measured.at >= until:
                continue
            if measured.at < after:
                break
            found = measured
            if measured.at <= time:
                break
        return found

    def of_stamp(self, stamp: float, after: float, until: float = math.inf) -> Measured | None:
        """As :meth:`at`, for the time that a stamp of this stream stands for."""
        found = None
        for measured in reversed(self._measured):
            if measured.at >= until:
                continue
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
