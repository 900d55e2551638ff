"""A stream through its losses: who was connected, that it is gone, and that it or its successor is back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...runtime.errors import shown
from ..records import ClockOffset, Notice
from .found import Found, Resolver, is_successor
from .inlet import Inlet, LostStream, Rows, Stamps
from .offsets import OffsetKeeper, OffsetThread

# For the description and the first sample of a stream that has just answered, in seconds.
_ANSWER = 5.0
# For the first measurement of a clock, which takes two thirds of a second where nothing is in its way.
_FIRST_CLOCK = 2.5
_LOOK = 0.1
_END = 1.0
# How long a second stream with the same identity is looked for, while samples of the first already queue.
_SETTLE = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Connection:
    """An open inlet, the whole description of its stream (pylsl's), and the thread that measures its clock."""

    inlet: Inlet
    full: Any
    offsets: OffsetThread

    def close(self) -> None:
        """Stop measuring, and disconnect."""
        self.offsets.stop()
        self.inlet.close()

    def end(self) -> None:
        """Disconnect, and wait for the thread: a program must not end within a call of liblsl."""
        self.close()
        self.offsets.join(_END)


def connect(found: Found, stream: str, now: Callable[[], float], *, clock_first: bool) -> Connection:
    """Connect to a stream.

    Parameters
    ----------
    clock_first
        Wait for the clock before samples are asked for, so that the first one has a local time. Otherwise nothing is
        waited for.

    Raises
    ------
    LostStream
        It does not answer.
    """
    inlet = Inlet(found)
    if not clock_first:
        inlet.open(_ANSWER)
    full = inlet.full_info(_ANSWER)
    offsets = OffsetThread(inlet, OffsetKeeper(stream, found.name), now)
    try:
        if clock_first:
            offsets.wait(_FIRST_CLOCK)
            inlet.open(_ANSWER)
    except LostStream:
        offsets.stop()
        raise
    return Connection(inlet=inlet, full=full, offsets=offsets)


class Search:
    """Looks in a thread for a stream that is gone, or silent, or for its successor.

    Parameters
    ----------
    lost
        The stream.
    gone
        Whether the connection is broken: then the same stream is looked for too. Otherwise it is silent, and while it
        answers nothing takes its place.
    connect
        Connects to what was found.
    """

    def __init__(self, lost: Found, gone: bool, connect: Callable[[Found], Connection]) -> None:
        self._lost, self._gone, self._connect = lost, gone, connect
        self._said: deque[str] = deque()
        self._done, self._stop = threading.Event(), threading.Event()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="stream search", daemon=True)
        self._thread.start()

    def take(self) -> tuple[Connection | None, list[str]]:
        """The new connection once there is one, and what was said since the last call."""
        said = [self._said.popleft() for _ in range(len(self._said))]
        return (self._connection if self._done.is_set() else None), said

    def stop(self, wait: float = 0.0) -> None:
        """End it, wait up to so many seconds for its end, and let go of what it has found and nobody has taken."""
        self._stop.set()
        if wait:
            self._thread.join(wait)
        if self._connection is not None:
            self._connection.close()

    def _run(self) -> None:
        resolver = Resolver()
        several = False
        while not self._stop.wait(_LOOK):
            fitting = self._fitting(resolver)
            if len(fitting) > 1 and not several:
                listed = "; ".join(map(str, fitting[:4]))
                self._said.append(f"{len(fitting)} streams could be it, and none is taken until one is left: {listed}")
            several = len(fitting) > 1
            if len(fitting) == 1 and self._taken(fitting[0], resolver):
                return

    def _fitting(self, resolver: Resolver) -> list[Found]:
        streams = resolver.streams()
        same = [one for one in streams if one.uid == self._lost.uid]
        if same:
            return same if self._gone else []
        return [one for one in streams if is_successor(one, self._lost)]

    def _taken(self, found: Found, resolver: Resolver) -> bool:
        """Connect, and see whether it stays the only one."""
        try:
            connection = self._connect(found)
        except LostStream:
            return False
        if self._stop.wait(_SETTLE) or [one.uid for one in self._fitting(resolver)] != [found.uid]:
            connection.close()
            return False
        self._connection = connection
        self._done.set()
        if self._stop.is_set():  # meanwhile
            connection.close()
        return True


class Follower:
    """One stream of a source.

    Parameters
    ----------
    stream
        `SIGNAL` or `MARKERS`.
    found
        Where it is at the start.
    now
        The local clock.

    Attributes
    ----------
    connection
        None while it is lost.
    """

    def __init__(self, stream: str, found: Found, now: Callable[[], float]) -> None:
        self.stream, self.found, self._now = stream, found, now
        self.connection: Connection | None = connect(found, stream, now, clock_first=True)
        self._search: Search | None = None

    def pull(self, timeout: float, **gathering: Any) -> tuple[tuple[Stamps, Rows] | None, list[Notice]]:
        """What came, None where nothing did, and that it was lost; :meth:`Inlet.pull` says the rest."""
        if self.connection is None:
            return None, []
        try:
            stamps, rows = self.connection.inlet.pull(timeout, **gathering)
        except LostStream as error:
            return None, [self._lost(str(error))]
        return ((stamps, rows) if len(stamps) else None), []

    def connected(self) -> Connection:
        """The connection.

        Raises
        ------
        LostStream
            There is none.
        """
        if self.connection is None:
            raise LostStream(f"the stream {shown(self.found.name)} is lost")
        return self.connection

    def clock(self) -> list[ClockOffset | Notice]:
        """What was measured since the last call."""
        return [] if self.connection is None else self.connection.offsets.take()

    def suspect(self) -> None:
        """It is silent: look whether another process has taken its place."""
        if self._search is None:
            self._search = Search(self.found, self.connection is None, self._connect)

    def trust(self) -> None:
        """It is heard again."""
        if self._search is not None and self.connection is not None:
            self._search.stop()
            self._search = None

    def found_again(self) -> tuple[bool, list[Notice]]:
        """Whether there is a new connection, and what was said of the search."""
        if self._search is None:
            return False, []
        connection, said = self._search.take()
        notices = [self._notice("lost", text) for text in said]
        if connection is None:
            return False, notices
        if self.connection is not None:  # it was silent, and never said to be gone
            self.connection.close()
            name = shown(self.found.name)
            notices.append(self._notice("lost", f"the stream {name} is gone: another process has its identity"))
        self.connection, self._search = connection, None
        self.found = connection.inlet.found
        return True, notices

    def close(self) -> None:
        """Let go of it; may be called twice."""
        if self._search is not None:
            self._search.stop(_END)
        if self.connection is not None:
            self.connection.end()
        self.connection = self._search = None

    def _connect(self, found: Found) -> Connection:
        return connect(found, self.stream, self._now, clock_first=False)

    def _lost(self, why: str) -> Notice:
        self.connected().close()
        self.connection = None
        if self._search is not None:  # for somebody else, while this one was silent
            self._search.stop()
            self._search = None
        self.suspect()
        return self._notice("lost", f"{why}: looking for it, by {_identity(self.found)}")

    def _notice(self, kind: str, text: str) -> Notice:
        return Notice(kind=kind, stream=self.stream, at=self._now(), text=text)


def _identity(found: Found) -> str:
    return f"its source_id {shown(found.source_id)}" if found.source_id else "its name, type, channels and host"
