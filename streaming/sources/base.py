"""The contract of a source: it gives what came, in the order in which it came, and interprets nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..records import Item, SignalInfo


def never() -> bool:
    """Of a search that nobody ends before its time."""
    return False


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a session asks of any source.

    Attributes
    ----------
    modality
        "eeg" or "meg", of the bundle.
    timeout
        Seconds to look for it.
    silence
        Seconds without samples after which it says so.
    stale
        Age in seconds of the newest sample beyond which it says so.
    stopped
        Asked again and again while it is looked for: whether nobody waits for it any more.
    """

    modality: str
    timeout: float = 10.0
    silence: float = 1.0
    stale: float = 1.0
    stopped: Callable[[], bool] = never


class Source(Protocol):
    """One signal and its markers; a context manager's work is done by `open` and `close`.

    Nothing here waits for a clock but `poll`, and that only for data: a test feeds a source's items one by one.
    """

    def open(self) -> SignalInfo:
        """Find it, and say what it is.

        Raises
        ------
        InputError
            It is not there, or there are several: the message lists what was found. Or nobody waits for it any more.
        """
        ...

    def poll(self, timeout: float) -> Sequence[Item]:
        """What came since the last call, as it came; waits for the first at most `timeout` seconds.

        After "lost" it goes on being asked, and may recover. After "ended" it gives nothing more.
        """
        ...

    def close(self) -> None:
        """Let go of it; may be called twice."""
        ...


@runtime_checkable
class Hurried(Protocol):
    """A source that rests while nobody needs its samples, so that waking up for each does not keep a core busy."""

    def expect(self, due: float | None) -> None:
        """From this local time on samples are needed as soon as they are there; None: nothing waits for any.

        Said before each poll.
        """
        ...


@runtime_checkable
class Paced(Protocol):
    """A source that brings its own time, as a recording does that is not played at the pace of its clock."""

    @property
    def now(self) -> float:
        """The local time that goes with what :meth:`Source.poll` gave last."""
        ...
