"""The books of a session: every marker in exactly one state, with its times on one clock.

One owner writes them, in the order in which things became known; nothing here asks for the time.
"""

from __future__ import annotations

import math
from array import array
from bisect import insort
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..runtime.errors import InputError

PENDING = "pending"
STATES = ("decoded", "rejected", "refused", "skipped", PENDING)
"""decoded: it has features; rejected: its epoch's own values cannot be used; refused: there is no epoch that can be
trusted (a gap, warm-up, too late), or the decoder failed; skipped: it is no event of this session."""
PICTURES = ("drawn", "skipped", "failed", PENDING, "none")
"""Of a decoded marker: drawn; skipped: not drawn, as newer ones came or the session ended; failed: see the reason;
none: no pictures are wanted."""
MOMENTS = (
    "marker",
    "arrived",
    "epoch_end",
    "ready",
    "decode_start",
    "decoded",
    "draw_start",
    "stage1",
    "shown",
    "stage2",
)
"""On this machine's clock: when the marker was sent and when it came; when the last sample that its epoch needs was
taken, and when the epoch was cut; decoding; drawing; the first picture, and when it was handed to the dashboard; the
refined picture, at the deadline where there is one."""
STAGES: Mapping[str, tuple[str, str]] = {
    "marker": ("marker", "arrived"),
    "epoch": ("arrived", "epoch_end"),
    "delivery": ("epoch_end", "ready"),
    "queue": ("ready", "decode_start"),
    "decode": ("decode_start", "decoded"),
    "wait": ("decoded", "draw_start"),
    "stage 1": ("draw_start", "stage1"),
    "display": ("stage1", "shown"),
    "stage 2": ("stage1", "stage2"),
    "to features": ("epoch_end", "decoded"),
    "to picture": ("epoch_end", "shown"),
    "to refined": ("epoch_end", "stage2"),
}
"""Durations that are added up, from one moment to another."""
SUMS = ("to features", "to picture", "to refined")
"""Those of `STAGES` that are made of others."""
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
MOST_TEXT = 200
_RECENT = 50


class Unbalanced(InputError):
    """The books were given something that cannot be: a fault of the program, not of the signal."""


@dataclass
class Entry:
    """One marker.

    Attributes
    ----------
    ordinal, text
        Of the marker; the text at most `MOST_TEXT` characters.
    state, reason
        One of `STATES`, and why, where it is not decoded.
    picture, picture_reason
        One of `PICTURES`, and why, where there is none.
    moments
        Seconds by a name of `MOMENTS`.
    figures
        "sample_age", "offset" and "uncertainty" in seconds, where the epoch was cut.
    """

    ordinal: int
    text: str
    state: str = PENDING
    reason: str = ""
    picture: str = "none"
    picture_reason: str = ""
    moments: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def closed(self) -> bool:
        """Whether nothing more is to come."""
        return PENDING not in (self.state, self.picture)

    @property
    def durations(self) -> dict[str, float]:
        """Seconds by a name of `STAGES`, of those whose both ends are known.

        A marker may arrive after its epoch's last sample: then it did not wait.
        """
        known = {name: ends for name, ends in STAGES.items() if set(ends) <= set(self.moments)}
        return {name: max(0.0, self.moments[b] - self.moments[a]) for name, (a, b) in known.items()}

    def as_json(self) -> dict[str, Any]:
        """The entry as one line of ledger.jsonl."""
        about: dict[str, Any] = {"ordinal": self.ordinal, "text": self.text, "state": self.state}
        if self.reason:
            about["reason"] = self.reason
        if self.state == "decoded":
            about["picture"] = self.picture
        if self.picture_reason:
            about["picture_reason"] = self.picture_reason
        return {**about, "moments": dict(self.moments), **self.figures}


@dataclass(frozen=True, kw_only=True)
class Totals:
    """How many markers came, how many are in each state, and what became of the pictures of the decoded ones."""

    received: int
    states: Mapping[str, int]
    pictures: Mapping[str, int]

    @property
    def balanced(self) -> bool:
        """Whether every marker is in exactly one state, and every decoded one has one state of its picture."""
        decoded = self.states["decoded"]
        return sum(self.states.values()) == self.received and sum(self.pictures.values()) == decoded

    def __str__(self) -> str:
        parts = [f"{count} {state}" for state, count in self.states.items() if count or state == "decoded"]
        drawn = [f"{count} {state}" for state, count in self.pictures.items() if count]
        pictures = f"; pictures: {', '.join(drawn)}" if drawn else ""
        return f"{self.received} marker{'s' * (self.received != 1)}: {', '.join(parts)}{pictures}"


class Ledger:
    """Every marker of a session from its arrival to its end.

    Entries that are closed are forgotten but for the last few; their durations stay, eight bytes each.

    Parameters
    ----------
    write
        Receives an entry as JSON after each change of its state or of its picture's: the last line of an ordinal
        counts, so that a file of these lines balances wherever it was cut off.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._write = write
        self._open: dict[int, Entry] = {}
        self._received = 0
        self._states = dict.fromkeys(STATES, 0)
        self._pictures = dict.fromkeys(PICTURES, 0)
        self._durations: dict[str, array[float]] = {name: array("d") for name in STAGES}
        self.recent: deque[Entry] = deque(maxlen=_RECENT)

    def receive(self, ordinal: int, text: str, arrived: float) -> Entry:
        """A marker has come; they are numbered from 0 without a hole, so that none is lost on the way here."""
        if ordinal != self._received:
            raise Unbalanced(f"marker {ordinal} came, and {self._received} was to come next")
        self._received += 1
        short = text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"
        entry = self._open[ordinal] = Entry(ordinal, short, moments={"arrived": arrived})
        self._states[PENDING] += 1
        self.recent.append(entry)
        self._line(entry)
        return entry

    def moment(self, ordinal: int, **moments: float) -> None:
        """Something happened to a marker at a time; the names are those of `MOMENTS`."""
        entry = self._entry(ordinal)
        for name, at in moments.items():
            if name not in MOMENTS:
                raise Unbalanced(f"{name} is no moment of the books")
            entry.moments[name] = at

    def figures(self, ordinal: int, *, sample_age: float, offset: float, uncertainty: float) -> None:
        """How old the newest sample was when the epoch was cut, and how far its clock is known, in seconds."""
        self._entry(ordinal).figures |= {"sample_age": sample_age, "offset": offset, "uncertainty": uncertainty}

    def settle(self, ordinal: int, state: str, reason: str = "", *, picture: bool = False) -> Entry:
        """Say what became of a marker, once; `picture`: one is to be drawn of it."""
        entry = self._entry(ordinal)
        if entry.state != PENDING or state not in STATES or state == PENDING:
            raise Unbalanced(f"marker {ordinal} is {entry.state}, and was to become {state}")
        self._states[PENDING] -= 1
        self._states[state] += 1
        entry.state, entry.reason = state, reason
        if state == "decoded":
            entry.picture = PENDING if picture else "none"
            self._pictures[entry.picture] += 1
        self._changed(entry)
        return entry

    def settle_picture(self, ordinal: int, state: str, reason: str = "") -> Entry:
        """Say what became of the picture of a decoded marker, once."""
        entry = self._entry(ordinal)
        if entry.picture != PENDING or state not in PICTURES or state == PENDING:
            raise Unbalanced(f"the picture of marker {ordinal} is {entry.picture}, and was to become {state}")
        self._pictures[PENDING] -= 1
        self._pictures[state] += 1
        entry.picture, entry.picture_reason = state, reason
        self._changed(entry)
        return entry

    def close(self, reason: str) -> None:
        """End the session: what is pending is refused, and pictures that are pending are skipped, for this reason."""
        for ordinal, entry in sorted(self._open.items()):
            if entry.state == PENDING:
                self.settle(ordinal, "refused", reason)
            else:
                self.settle_picture(ordinal, "skipped", reason)

    def pending(self) -> list[int]:
        """The ordinals of the markers that are pending, in their order."""
        return sorted(ordinal for ordinal, entry in self._open.items() if entry.state == PENDING)

    def totals(self) -> Totals:
        """The sums as they are now."""
        return Totals(received=self._received, states=dict(self._states), pictures=dict(self._pictures))

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Of each stage that was passed: n, and p50, p95, p99 and max in seconds, by nearest rank."""
        return {name: _quantiles(values) for name, values in self._durations.items() if values}

    def summary(self) -> dict[str, Any]:
        """Totals and percentiles as JSON, the last line of the file."""
        totals = self.totals()
        return {
            "received": totals.received,
            "states": dict(totals.states),
            "pictures": dict(totals.pictures),
            "balanced": totals.balanced,
            "seconds": self.percentiles(),
        }

    def _entry(self, ordinal: int) -> Entry:
        entry = self._open.get(ordinal)
        if entry is None:
            known = f"is closed, or was never received ({self._received} were)"
            raise Unbalanced(f"marker {ordinal} {known}")
        return entry

    def _changed(self, entry: Entry) -> None:
        self._line(entry)
        if entry.closed:
            del self._open[entry.ordinal]
            for name, seconds in entry.durations.items():
                insort(self._durations[name], seconds)  # in order, so that percentiles are looked up

    def _line(self, entry: Entry) -> None:
        if self._write is not None:
            self._write(entry.as_json())


def _quantiles(ordered: array[float]) -> dict[str, float]:
    n = len(ordered)
    return {"n": n, **{name: ordered[math.ceil(q * n) - 1] for name, q in QUANTILES.items()}}
