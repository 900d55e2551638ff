"""How far a sender's clock is from ours: measured again and again, beside the samples and never in their way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ...runtime.errors import shown
from ..records import ClockOffset, Notice
from .inlet import LostStream, NoAnswer

EVERY = 2.0
"""Seconds between measurements, as often as liblsl makes new ones."""
_TIMEOUT = 5.0
# liblsl goes on giving the last offset when nothing answers any more: this much older, it is no measurement.
_OLD = 15.0
# A step of a clock by more than this and what both measurements leave open, in seconds.
_STEP = 0.005


class Clocked(Protocol):
    """What has a clock: an inlet."""

    def clock_offset(self, timeout: float) -> tuple[float, float, float]: ...


class OffsetKeeper:
    """What is said of one stream's clock, from measurement to measurement; no thread, no clock.

    Parameters
    ----------
    stream
        `SIGNAL` or `MARKERS`.
    name
        The stream's own, for people.
    """

    def __init__(self, stream: str, name: str) -> None:
        self._stream, self._name = stream, shown(name)
        self._last: ClockOffset | None = None
        self._remote = float("-inf")
        self._failing = False

    def measured(self, offset: float, uncertainty: float, remote: float, at: float) -> list[ClockOffset | Notice]:
        """A measurement that liblsl gave at the local time `at`, made at the sender's time `remote`."""
        if at - (remote + offset) > _OLD:
            age = at - (remote + offset)
            return self.failed(at, f"has not been measured for {age:.0f} s")
        said: list[ClockOffset | Notice] = []
        if self._failing:
            self._failing = False
            said.append(self._notice(at, f"the clock of {self._name} answers again"))
        if remote == self._remote:
            return said
        now = ClockOffset(stream=self._stream, at=at, offset=offset, uncertainty=uncertainty)
        if self._last is not None and self._last.offset != offset:
            step = offset - self._last.offset
            if abs(step) > _STEP + uncertainty + self._last.uncertainty:
                said.append(
                    self._notice(at, f"the clock of {self._name} moved by {step * 1e3:+.1f} ms against this machine's")
                )
        self._last, self._remote = now, remote
        return [now, *said]

    def failed(self, at: float, how: str = "does not answer") -> list[ClockOffset | Notice]:
        """No measurement; said once until there is one again."""
        if self._failing:
            return []
        self._failing = True
        unknown = "its offset is unknown; a firewall may block UDP"
        kept = unknown if self._last is None else "the last offset is kept"
        return [self._notice(at, f"the clock of {self._name} {how}: {kept}")]

    def _notice(self, at: float, text: str) -> Notice:
        return Notice(kind="clock", stream=self._stream, at=at, text=text)


class OffsetThread:
    """Measures one stream's clock every few seconds, until it is stopped."""

    def __init__(self, clocked: Clocked, keeper: OffsetKeeper, now: Callable[[], float], every: float = EVERY) -> None:
        self._clocked, self._keeper, self._now, self._every = clocked, keeper, now, every
        self._said: deque[ClockOffset | Notice] = deque()
        self._first, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock offset", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> bool:
        """Wait for the first measurement, or its failure."""
        return self._first.wait(timeout)

    def take(self) -> list[ClockOffset | Notice]:
        """What was said since the last call."""
        taken: list[ClockOffset | Notice] = []
        while self._said:
            taken.append(self._said.popleft())
        return taken

    def stop(self) -> None:
        """End it; a measurement under way is left to itself."""
        self._stop.set()

    def join(self, timeout: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                said = self._keeper.measured(*self._clocked.clock_offset(_TIMEOUT), self._now())
            except NoAnswer:
                said = self._keeper.failed(self._now())
            except LostStream:  # said by whoever pulls samples
                self._first.set()
                return
            if not self._stop.is_set():
                self._said.extend(said)
            self._first.set()
            self._stop.wait(self._every)
