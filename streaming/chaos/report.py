"""What became of a recording under faults, as figures, as sentences and for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .plan import Fault

_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class SessionReport:
    """What became of the whole session: acquisition, decoding, books, recording and page.

    Attributes
    ----------
    faults
        Of its own parts, that happened.
    states
        Markers by the state in which the books have them at the end.
    failed
        Markers that a fault of the decoder has cost.
    recording
        "whole", or "stopped" where the disk was full.
    said
        What it said, a line each.
    broken
        Sentences about what does not hold; empty where it held.
    """

    faults: Sequence[Fault]
    states: dict[str, int]
    failed: int
    recording: str
    said: Sequence[str]
    broken: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "faults": [str(fault) for fault in self.faults],
            **{name: getattr(self, name) for name in ("states", "failed", "recording")},
            **{name: list(getattr(self, name)) for name in ("said", "broken")},
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a session under faults.

    Attributes
    ----------
    faults
        That happened.
    seconds
        Of signal.
    states
        Markers by state: "accepted", or a state of `Refused`.
    reasons
        Refusals by reason, without their details behind ": ".
    said
        What was said of the signal, a line each.
    samples
        How many came, and what became of them.
    n_undisturbed
        Markers that are accepted without faults.
    n_exact
        Accepted epochs that are to the bit those of the undisturbed signal.
    n_shifted
        Of them, those of the sample beside the event's.
    wrong, unbalanced, missed
        Sentences about accepted epochs that are not what they should be; about markers and samples whose books do not
        balance; about markers that were refused with no fault near. All three are empty where it held.
    session
        What became of the whole session, where one was run.
    """

    faults: Sequence[Fault]
    seconds: float
    states: dict[str, int]
    reasons: dict[str, int]
    said: Sequence[str]
    samples: dict[str, int]
    n_undisturbed: int
    n_exact: int
    n_shifted: int
    wrong: Sequence[str]
    unbalanced: Sequence[str]
    missed: Sequence[str]
    session: SessionReport | None = None

    @property
    def held(self) -> bool:
        """Whether nothing wrong came out."""
        broken = self.session is not None and bool(self.session.broken)
        return not (self.wrong or self.unbalanced or self.missed or broken)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "held": self.held,
            "faults": [str(fault) for fault in self.faults],
            **{name: getattr(self, name) for name in ("seconds", "states", "reasons", "samples")},
            **{name: getattr(self, name) for name in ("n_undisturbed", "n_exact", "n_shifted")},
            **{name: list(getattr(self, name)) for name in ("said", "wrong", "unbalanced", "missed")},
            "session": None if self.session is None else self.session.as_json(),
        }


def lines(report: Report) -> Iterator[str]:
    """The report for people."""
    session = report.session
    faults = [*report.faults, *(() if session is None else session.faults)]
    yield f"{len(faults)} faults in {report.seconds:.0f} s of signal:"
    yield from (f"  {fault}" for fault in sorted(faults, key=lambda fault: fault.start))
    received = sum(report.states.values())
    yield f"{received} markers: {_counted(report.states)}; without faults {report.n_undisturbed} are accepted"
    yield from (f"  {count} x {reason}" for reason, count in report.reasons.items())
    samples = dict(report.samples)
    yield f"{samples.pop('received')} samples: {', '.join(f'{count} {name}' for name, count in samples.items())}"
    beside = f", {report.n_shifted} of them by the sample beside the event's" if report.n_shifted else ""
    yield f"{report.n_exact} accepted epochs are to the bit those of the undisturbed signal{beside}"
    if session is not None:
        cost = f", {session.failed} by the faults of the decoder" if session.failed else ""
        disk = "whole" if session.recording == "whole" else "stopped by a full disk, which was said"
        yield f"the session: {_counted(session.states)}{cost}; its recording: {disk}"
    found = (("WRONG", report.wrong), ("UNBALANCED", report.unbalanced), ("MISSED", report.missed))
    for title, texts in (*found, ("BROKEN", () if session is None else session.broken)):
        yield from (f"{title}: {text}" for text in texts[:_NAMED])
        if len(texts) > _NAMED:
            yield f"{title}: and {len(texts) - _NAMED} more"
    yield "held" if report.held else "did not hold"


def _counted(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if count) or "none"
