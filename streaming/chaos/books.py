"""Every marker and sample that goes into an intake, and every event that comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..intake.events import Accepted, Event, IntakeState, Refused, Said
from ..intake.intake import Intake
from ..records import Item, Marker, SignalInfo
from .truth import Truth

ACCEPTED = "accepted"


class Books:
    """The books of one intake, which is started here."""

    def __init__(self, intake: Intake, info: SignalInfo) -> None:
        self._intake = intake
        intake.start(info)
        self._received: set[int] = set()
        self._closed: Counter[int] = Counter()
        self.accepted: list[Accepted] = []
        self.refused: list[Refused] = []
        self.said: list[str] = []
        self.unbalanced: list[str] = []
        self.state: IntakeState = intake.state(0.0)

    def take(self, items: Sequence[Item], now: float) -> None:
        """Step the intake."""
        self._received |= {item.ordinal for item in items if isinstance(item, Marker)}
        self._note(self._intake.step(items, now), now)
        n_open = len(self._received) - len(self._closed)
        if self.state.n_waiting != n_open and not self.unbalanced:
            self.unbalanced.append(f"{n_open} markers are open, and the intake says that {self.state.n_waiting} wait")

    def finish(self, now: float) -> None:
        """End it: every marker must have ended once."""
        self._note(self._intake.finish(now), now)
        for ordinal in sorted(self._received ^ set(self._closed)):
            self.unbalanced.append(f"marker {ordinal} came, and nothing became of it, or the other way about")
        for ordinal, times in self._closed.items():
            if times > 1:
                self.unbalanced.append(f"marker {ordinal} ended {times} times")

    @property
    def states(self) -> dict[str, int]:
        """How many markers ended in each state."""
        return dict(Counter([ACCEPTED] * len(self.accepted) + [refused.state for refused in self.refused]))

    def _note(self, events: Sequence[Event], now: float) -> None:
        for event in events:
            if isinstance(event, Said):
                self.said.append(event.notice.text)
                continue
            self._closed[event.ordinal] += 1
            if isinstance(event, Accepted):
                self.accepted.append(event)
            else:
                self.refused.append(event)
        self.state = self._intake.state(now)


def counted(state: IntakeState) -> dict[str, int]:
    """How many samples came, and what became of them."""
    return {
        "received": state.n_samples,
        "used": state.n_used,
        "duplicate": state.n_duplicate,
        "not numbers": state.n_nan,
        "unusable": state.n_unusable,
    }


def lost(state: IntakeState, truth: Truth) -> list[str]:
    """Whether every delivered sample is accounted for."""
    became = counted(state)
    received = became.pop("received")
    said = []
    if received != truth.n_delivered:
        said.append(f"{truth.n_delivered} samples were delivered, and the intake counts {received}")
    if sum(became.values()) != received:
        said.append(f"{received} samples came, and {sum(became.values())} are accounted for: {became}")
    return said
