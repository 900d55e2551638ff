"""A recording played as streams, in real time, each sample and marker with the exact stamp of its moment."""

from __future__ import annotations

import heapq
import math
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import FileError, InputError
from ..clock import now as local_now
from ..records import Item, Marker, Samples, SignalInfo
from .outlet import TEXTS, MarkerOutlet, SignalOutlet

# Between the moment at which somebody receives and the first sample, in seconds.
_LEAD = 0.2
AHEAD = 2.0
"""Seconds of a recording that are read before they are due: markers may be recorded that much after their samples."""
_LONGEST_SLEEP = 0.25
_MARKERS_WAIT = 5.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Performance:
    """What is played, and how.

    Attributes
    ----------
    info
        The signal's description, see `SignalOutlet`.
    type
        "EEG" or "MEG".
    items
        Samples, in the units that `info` declares, and markers, as they were recorded: their stamps are seconds of one
        clock, and those of the samples rise. Read while it plays, `AHEAD` seconds before they are due.
    format, marker_format
        Of the numbers, and of the markers.
    marker_name
        Of the marker stream, None for none; its source_id is the signal's, with "-markers" behind it.
    chunk
        Samples that are sent together, when the last of them has come; fewer where a block of `items` ends.
    speed
        Of the sending: at 10 an hour takes six minutes. Stamps advance as in the recording all the same.
    """

    info: SignalInfo
    type: str
    items: Iterable[Item]
    format: str = "float32"
    marker_format: str = TEXTS
    marker_name: str | None = "Markers"
    chunk: int = 1
    speed: float = 1.0

    def __post_init__(self) -> None:
        if self.chunk < 1 or not self.speed > 0:
            raise InputError(f"chunk is {self.chunk} and speed {self.speed:g}: give 1 or more, and more than 0")


class _Signal(Protocol):
    def push(self, data: NDArray[Any], stamps: NDArray[np.float64]) -> None: ...


class _Markers(Protocol):
    def push(self, raw: bytes, stamp: float) -> None: ...


class Player:
    """Sends what is due, at the times that it is given; no clock of its own.

    Parameters
    ----------
    start
        Local time of the first sample.

    Attributes
    ----------
    n_samples, n_markers
        Sent so far.
    """

    def __init__(self, performance: Performance, signal: _Signal, markers: _Markers | None, start: float) -> None:
        self._played, self._signal, self._markers, self._start = performance, signal, markers, start
        self._items = iter(performance.items)
        self._chunks: deque[tuple[NDArray[np.float64], NDArray[Any]]] = deque()
        self._texts: list[tuple[float, int, bytes]] = []
        self._first = math.nan
        self._read = -math.inf
        self.n_samples = self.n_markers = 0
        self._read_ahead()

    def due(self) -> float:
        """Local time at which something is to be sent next; infinite at the end."""
        moment = self._next()
        return moment if moment == math.inf else self._start + (moment - self._first) / self._played.speed

    def step(self, now: float) -> None:
        """Send whatever is due at `now`: chunks whose last sample has come, and the markers until then."""
        while self.due() <= now:
            if self._texts and self._texts[0][0] <= self._chunk_due():
                stamp, _, raw = heapq.heappop(self._texts)
                if self._markers is not None:
                    self._markers.push(raw, self._start + (stamp - self._first))
                    self.n_markers += 1
            else:
                stamps, data = self._chunks.popleft()
                self._signal.push(data, self._start + (stamps - self._first))
                self.n_samples += len(stamps)
            self._read_ahead()

    def _chunk_due(self) -> float:
        return float(self._chunks[0][0][-1]) if self._chunks else math.inf

    def _next(self) -> float:
        """The stamp of what comes next."""
        return min(self._chunk_due(), self._texts[0][0] if self._texts else math.inf)

    def _read_ahead(self) -> None:
        """Take items until a marker of what is sent next has been read, if it was recorded at most `AHEAD` later."""
        while self._read < self._next() + AHEAD or not self._chunks:
            item = next(self._items, None)
            if item is None:
                self._read = math.inf
                return
            if isinstance(item, Samples) and len(item.stamps):
                self._take(item)
            elif isinstance(item, Marker):
                heapq.heappush(self._texts, (item.stamp, item.ordinal, item.raw))

    def _take(self, samples: Samples) -> None:
        stamps = samples.stamps
        if math.isnan(self._first):
            self._first = float(stamps[0])
        for start in range(0, len(stamps), self._played.chunk):
            part = slice(start, start + self._played.chunk)
            self._chunks.append((stamps[part], samples.data[:, part]))
        self._read = float(stamps[0])  # markers of this block may stand behind it


def perform(
    performance: Performance,
    *,
    wait: float = 0.0,
    linger: float = 1.0,
    ready: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
    now: Callable[[], float] = local_now,
) -> tuple[int, int]:
    """Play to the end, and return the numbers of samples and markers that were sent.

    Parameters
    ----------
    wait
        Seconds to wait for somebody who receives; then it plays all the same. Once the signal is received, the markers
        are waited for some seconds, and not all want them.
    linger
        Seconds for which the streams stay after the end, so that the last of it arrives.
    ready
        Called once the streams can be found.
    stopped
        Asked before each pause: whether to end.
    """
    signal = SignalOutlet(performance.info, type=performance.type, format=performance.format)
    markers = None
    if performance.marker_name is not None:
        source_id = performance.info.source_id and f"{performance.info.source_id}-markers"
        markers = MarkerOutlet(performance.marker_name, source_id, performance.marker_format)
    ready()
    for outlet, patience in ((signal, wait), (markers, min(wait, _MARKERS_WAIT))):
        end = now() + patience
        while outlet is not None and now() < end and not stopped() and not outlet.wait_for_consumers(_LONGEST_SLEEP):
            pass
    player = Player(performance, signal, markers, now() + _LEAD)
    while (due := player.due()) < float("inf") and not stopped():
        time.sleep(min(max(0.0, due - now()), _LONGEST_SLEEP))
        player.step(now())
    end = now() + linger
    while now() < end and signal.has_consumers() and not stopped():
        time.sleep(0.05)
    return player.n_samples, player.n_markers


class PlayingProcess:
    """A process of its own that plays, for the demonstration, `certify` and tests; a context manager.

    Parameters
    ----------
    recipe
        Makes the performance there: a function of a module, or a `functools.partial` of one.
    wait, linger
        As in :func:`perform`.
    """

    def __init__(self, recipe: Callable[[], Performance], *, wait: float = 30.0, linger: float = 1.0) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self.process = context.Process(target=_play, args=(recipe, wait, linger, there), daemon=True)
        self.process.start()
        there.close()

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait until its streams can be found.

        Raises
        ------
        FileError
            It ended before, or took too long.
        """
        try:
            if self._here.poll(timeout) and self._here.recv_bytes() == b"ready":
                return
        except EOFError:
            pass
        self.stop()
        raise FileError("the process that plays did not start: its error stands above")

    def stop(self, timeout: float = 5.0) -> None:
        """Ask it to end, and end it."""
        if not self._here.closed:
            self._here.close()
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def __enter__(self) -> Self:
        self.wait_until_ready()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop()


def _play(recipe: Callable[[], Performance], wait: float, linger: float, pipe: Any) -> None:
    """The process; it ends with the pipe, thus with whoever holds its other end."""

    def stopped() -> bool:
        try:
            return bool(pipe.poll()) and not pipe.recv_bytes()
        except (EOFError, OSError):
            return True

    try:
        perform(recipe(), wait=wait, linger=linger, ready=lambda: pipe.send_bytes(b"ready"), stopped=stopped)
    except (KeyboardInterrupt, BrokenPipeError):
        pass
