"""The end of the demonstration: when every marker has its epoch or a reason, or the player is gone."""

from __future__ import annotations

from collections.abc import Callable

from ..intake.events import Accepted, Event, Refused, Said
from ..records import SIGNAL
from ..session.acquisition import FromAcquisition, Happened
from ..session.process import END_S, Feed, Post


class EndingFeed:
    """A feed that ends by itself after so many markers, or with its signal: nobody plays it a second time.

    Parameters
    ----------
    feed
        Not started.
    n_markers
        Of the whole session.
    before
        Called before it is started: the streams have to be there.
    """

    def __init__(self, feed: Feed, n_markers: int, before: Callable[[], object]) -> None:
        self._feed, self._n_markers, self._before = feed, n_markers, before
        self._n_settled = 0

    def start(self, post: Post) -> None:
        """Begin; `post` receives every message."""

        def hear(message: FromAcquisition) -> None:
            post(message)
            if isinstance(message, Happened):
                self._n_settled += sum(isinstance(event, Accepted | Refused) for event in message.events)
                if self._n_settled >= self._n_markers or any(map(_is_over, message.events)):
                    self._feed.stop()

        self._before()
        self._feed.start(hear)

    def stop(self) -> None:
        """Ask it to end, before its time."""
        self._feed.stop()

    def close(self, patience: float = END_S) -> None:
        """Wait until it has ended, and end it after so many seconds."""
        self._feed.close(patience)


def _is_over(event: Event) -> bool:
    """Whether the signal is gone."""
    return isinstance(event, Said) and event.notice.kind == "lost" and event.notice.stream == SIGNAL
