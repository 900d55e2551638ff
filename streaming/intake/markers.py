"""Which markers are events, and those that wait for their place in the signal."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ...runtime.errors import shown
from ..records import Marker

MOST_SHOWN = 200
"""Characters of a marker's text that events and messages carry."""
# Bytes; what is longer is no name of an event, and would be slow to compare with patterns.
_MOST_BYTES = 4096


def text_of(marker: Marker) -> str:
    """The marker's text, cut where it is long."""
    text = marker.raw[: 4 * MOST_SHOWN].decode("utf-8", "replace")
    return text if len(text) <= MOST_SHOWN and len(marker.raw) <= 4 * MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"


def why_no_event(marker: Marker, patterns: Sequence[str]) -> str | None:
    """Why a marker is no event of this session; None where it is one."""
    if len(marker.raw) > _MOST_BYTES:
        return f"the marker is {len(marker.raw):,} bytes long, and events have at most {_MOST_BYTES:,}"
    text = marker.text
    if not text.strip():
        return "the marker is empty"
    if patterns and not any(fnmatchcase(text, pattern) for pattern in patterns):
        return f"it is none of this session's events, {', '.join(map(shown, patterns))}"
    return None


@dataclass(frozen=True, kw_only=True)
class Waits:
    """A marker that waits for its place.

    Attributes
    ----------
    trusted_after
        Local time after which its clock's offset has to be measured to hold for it.
    newest, newest_came
        Stamp of the newest sample that came before it, and when that came; -inf where none had.
    """

    marker: Marker
    trusted_after: float
    newest: float
    newest_came: float


class Waiting:
    """Markers in the order of their stamps."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Waits]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, waits: Waits) -> None:
        """Put one among them."""
        heapq.heappush(self._heap, (waits.marker.stamp, waits.marker.ordinal, waits))

    def first(self) -> Waits:
        """The one with the earliest stamp."""
        return self._heap[0][2]

    def pop(self) -> Marker:
        """Take the one with the earliest stamp."""
        return heapq.heappop(self._heap)[2].marker
