"""How far a long command is: done of total, rate, time left; one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from .closing import Closing
from .errors import InputError

Clock = Callable[[], float]
LIVE_S, PLAIN_S = 0.1, 5.0


def unheard(*_said: object) -> None:
    """The callback of whoever does not listen."""


class Progress(Closing):
    """Progress of one phase, itself a callback: ``progress(done)`` or ``progress(done, total)``.

    Parameters
    ----------
    total : how many steps there are, at least 0.
    label : what is being done, such as "stage 1".
    stream : where lines go; standard error when None. Never standard output, which holds results.
    unit : what is counted, such as "images"; part of the rate.
    done : how many steps an earlier run has finished: shown, but not part of the rate.
    clock : monotonic seconds.

    Notes
    -----
    On a terminal the line is rewritten at most ten times a second. Elsewhere (a log, a pipe) a whole line
    appears at most every five seconds, so that a log stays short. The last line is always written.
    A stream that is closed or broken silences the progress; the work goes on.
    """

    def __init__(
        self,
        total: int,
        label: str,
        *,
        stream: TextIO | None = None,
        unit: str = "",
        done: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        if total < 0 or done < 0:
            raise InputError(f"progress of {done} of {total} was reported: both are counts, give 0 or more")
        self.total, self.label, self.unit = total, label, unit
        self.done = self._before = done
        stream = sys.stderr if stream is None else stream
        self._stream: TextIO | None = stream
        self._clock = clock
        self._live = _is_terminal(stream)
        self._started = clock()
        self._shown_at = self._started if not self._live else float("-inf")
        self._shown: tuple[int, int] | None = None
        self._width = 0
        self._closed = False

    def __call__(self, done: int, total: int | None = None) -> None:
        """Say that `done` steps are finished in all (and that there are `total`, when that has changed)."""
        if self._closed:
            return
        self.done = done
        self.total = self.total if total is None else total
        now = self._clock()
        if now - self._shown_at >= (LIVE_S if self._live else PLAIN_S):
            self._show(now)

    def line(self, now: float) -> str:
        """The line for the time `now` (seconds of the clock)."""
        elapsed, made = max(now - self._started, 0.0), self.done - self._before
        text = f"{self.label}: {self.done}/{self.total}"
        if self.total > 0:
            text += f" ({100 * min(self.done / self.total, 1.0):.0f} %)"
        if made > 0 and elapsed > 0:
            text += f", {_rate(made / elapsed, self.unit)}"
        if self.done >= self.total:
            return f"{text}, took {duration(elapsed)}"
        if made > 0 and elapsed > 0:
            text += f", {duration(elapsed / made * (self.total - self.done))} left"
        return text

    def close(self) -> None:
        """Write the last line; further calls do nothing."""
        if self._closed:
            return
        if self._shown != (self.done, self.total):
            self._show(self._clock())
        if self._live:
            self._write("\n")
        self._closed = True

    def _show(self, now: float) -> None:
        text = self.line(now)
        self._shown_at, self._shown = now, (self.done, self.total)
        if self._live:
            # The padding wipes what a longer line has left behind.
            self._write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._write(text + "\n")

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None


class Phases(Closing):
    """Progress of work with several phases: ``phases(label, done, total)``; a new label begins a new phase.

    A phase's first report gives what was there before it began (0, unless an earlier run has left something).

    Parameters
    ----------
    stream, clock : as in :class:`Progress`.
    """

    def __init__(self, *, stream: TextIO | None = None, clock: Clock = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._now: Progress | None = None

    def __call__(self, label: str, done: int, total: int) -> None:
        """Say that `done` of `total` steps of the phase `label` are finished."""
        if self._now is None or self._now.label != label:
            self.close()
            self._now = Progress(total, label, stream=self._stream, done=done, clock=self._clock)
        self._now(done, total)

    def close(self) -> None:
        """End the present phase."""
        if self._now is not None:
            self._now.close()
        self._now = None


def duration(seconds: float) -> str:
    """Seconds in words: "8 s", "3 min 05 s", "2 h 07 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # not a real file, or closed
        return False


def _rate(per_second: float, unit: str) -> str:
    name = f" {unit}" if unit else ""
    return f"{per_second:.1f}{name}/s" if per_second >= 1 else f"{60 * per_second:.1f}{name}/min"
