"""A recording goes through faults and the intake, and every outcome is compared with what is true."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...runtime.signal.chain import Chain
from ..intake.events import Accepted, Event, IntakeState, Refused, Said
from ..intake.intake import Intake
from ..intake.settings import IntakeSettings
from ..records import Item, Marker, SignalInfo
from .original import F64, Original, epochs_of, gather, reach
from .plan import Fault
from .source import Injector
from .truth import Truth

ACCEPTED = "accepted"
# Seconds that the signal may take after a fault, beyond its filters' warm-up: to learn its jitter, to measure clocks.
_RECOVERY = 6.0
# A marker may be one sample off where clocks drift or stamps jitter.
_SHIFTS = (0, 1, -1)
_NAMED = 5


class Step(Protocol):
    """What a session was given at the local time `now`: a step of a recording of ours, or of a replay."""

    @property
    def now(self) -> float: ...

    @property
    def items(self) -> Sequence[Item]: ...


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
        balance; about markers that were refused with no fault near. All three are empty where the session held.
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

    @property
    def held(self) -> bool:
        """Whether nothing wrong came out."""
        return not (self.wrong or self.unbalanced or self.missed)

    def as_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "held": self.held,
            "faults": [str(fault) for fault in self.faults],
            **{name: getattr(self, name) for name in ("seconds", "states", "reasons", "samples")},
            **{name: getattr(self, name) for name in ("n_undisturbed", "n_exact", "n_shifted")},
            **{name: list(getattr(self, name)) for name in ("said", "wrong", "unbalanced", "missed")},
        }


def suffer(
    steps: Sequence[Step], info: SignalInfo, chain: Chain, settings: IntakeSettings, faults: Iterator[Fault]
) -> Report:
    """Give a recording to the intake, once as it is and once with faults.

    Parameters
    ----------
    steps
        Of the recording, in their order.
    info
        Of its signal.
    chain
        Opened for the decoder's channels and the signal's rate.
    settings
        Of the intake.
    faults
        In their order, such as :func:`.plan.drawn` gives; those that begin within the recording happen.
    """
    undisturbed = _Books(Intake(chain, settings), info)
    for step in steps:
        undisturbed.take(step.items, step.now)
    undisturbed.finish(steps[-1].now if steps else 0.0)
    truth = Truth()
    injector = Injector(faults, info, truth)
    intake = Intake(chain, settings)
    books = _Books(intake, info)
    for step in steps:
        books.take(injector.step(step.items), step.now)
    last = steps[-1].now if steps else 0.0
    books.take(injector.finish(last), last)
    books.finish(last)
    original = gather(item for step in steps for item in step.items)
    signal = intake_units(chain, settings, info).converted(original.data) if original.n_samples else original.data
    check = _Check(original=original, signal=signal, chain=chain, truth=truth)
    wrong, n_exact, n_shifted = check.wrong(books.accepted)
    return Report(
        faults=injector.happened,
        seconds=original.n_samples / info.sfreq,
        states=books.states,
        reasons=dict(Counter(refused.reason.partition(":")[0] for refused in books.refused).most_common()),
        said=books.said,
        samples=_samples(books.state),
        n_undisturbed=len(undisturbed.accepted),
        n_exact=n_exact,
        n_shifted=n_shifted,
        wrong=wrong,
        unbalanced=[*undisturbed.unbalanced, *books.unbalanced, *_lost(books.state, truth)],
        missed=check.missed(undisturbed.accepted, books, injector.happened, info.sfreq),
    )


def intake_units(chain: Chain, settings: IntakeSettings, info: SignalInfo) -> Intake:
    """An intake that knows the source's units, of which nothing else is asked."""
    intake = Intake(chain, settings)
    intake.start(info)
    return intake


class _Books:
    """Every marker and sample that goes in, and every event that comes out."""

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
        self._received |= {item.ordinal for item in items if isinstance(item, Marker)}
        self._note(self._intake.step(items, now), now)
        n_open = len(self._received) - len(self._closed)
        if self.state.n_waiting != n_open and not self.unbalanced:
            self.unbalanced.append(f"{n_open} markers are open, and the intake says that {self.state.n_waiting} wait")

    def finish(self, now: float) -> None:
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


def _samples(state: IntakeState) -> dict[str, int]:
    return {
        "received": state.n_samples,
        "used": state.n_used,
        "duplicate": state.n_duplicate,
        "not numbers": state.n_nan,
        "unusable": state.n_unusable,
    }


def _lost(state: IntakeState, truth: Truth) -> list[str]:
    """Whether every delivered sample is accounted for."""
    counted = _samples(state)
    received = counted.pop("received")
    said = []
    if received != truth.n_delivered:
        said.append(f"{truth.n_delivered} samples were delivered, and the intake counts {received}")
    if sum(counted.values()) != received:
        said.append(f"{received} samples came, and {sum(counted.values())} are accounted for: {counted}")
    return said


@dataclass(frozen=True, kw_only=True, eq=False)
class _Check:
    """What is true of a session: its samples as they were, in V or T too, and what was delivered."""

    original: Original
    signal: F64
    chain: Chain
    truth: Truth

    def wrong(self, accepted: Sequence[Accepted]) -> tuple[list[str], int, int]:
        """Sentences about wrong epochs, and how many are right, and of those how many by the sample beside."""
        delivered = np.zeros(self.original.n_samples + 1, bool)
        delivered[np.concatenate([*self.truth.numbers, np.array([-1])])] = True
        delivered[-1] = False  # where altered ones were counted
        said, n_exact, n_shifted = [], 0, 0
        left = [(one, self.original.sample_at(self.truth.markers[one.ordinal].stamp)) for one in accepted]
        for shift in _SHIFTS:
            right = self._right([(one, event + shift) for one, event in left], delivered)
            n_exact += len(right)
            n_shifted += len(right) if shift else 0
            left = [(one, event) for one, event in left if one.ordinal not in right]
        for one, event in left:
            said.append(
                f"the epoch of marker {one.ordinal} ({one.text!r}, sample {event}) is not what was received "
                f"{reach(self.chain, self.chain.plan.input.sfreq)[0]} samples before it to its end, filtered since "
                f"sample {event - one.sample}"
            )
        return said, n_exact, n_shifted

    def _right(self, accepted: Sequence[tuple[Accepted, int]], delivered: np.ndarray) -> set[int]:
        """Ordinals of those whose epochs, of these events, are what they should be."""
        _, behind = reach(self.chain, self.chain.plan.input.sfreq)
        by_start: dict[int, list[tuple[Accepted, int]]] = defaultdict(list)
        for one, event in accepted:
            start = event - one.sample
            if 0 <= start and delivered[start : event + behind].all():
                by_start[start].append((one, event))
        right = set()
        for start, group in by_start.items():
            expected = epochs_of(self.chain, self.signal, start, sorted({event for _, event in group}))
            right |= {
                one.ordinal for one, event in group if event in expected and np.array_equal(one.data, expected[event])
            }
        return right

    def missed(
        self, undisturbed: Sequence[Accepted], books: _Books, faults: Sequence[Fault], sfreq: float
    ) -> list[str]:
        """Sentences about markers that would have been accepted, and were not, though no fault was near."""
        before, behind = reach(self.chain, sfreq)
        recovery = round((self.chain.warm_up + _RECOVERY) * sfreq)
        spans = [
            (fault.start * sfreq, (fault.start if math.isinf(fault.stop) else fault.stop) * sfreq) for fault in faults
        ]
        fine = {one.ordinal for one in undisturbed}
        accepted = {self.truth.markers[one.ordinal].ordinal for one in books.accepted}
        said = []
        for refused in books.refused:
            true = self.truth.markers[refused.ordinal]
            if true.ordinal not in fine or true.ordinal in accepted:
                continue
            event = self.original.sample_at(true.stamp)
            first, last = event - before - recovery, event + behind + round(sfreq)
            if not any(start <= last and stop >= first for start, stop in spans):
                said.append(
                    f"marker {refused.ordinal} ({refused.text!r}) was refused, and no fault was near: {refused.reason}"
                )
        return said


def lines(report: Report) -> Iterator[str]:
    """The report for people."""
    yield f"{len(report.faults)} faults in {report.seconds:.0f} s of signal:"
    yield from (f"  {fault}" for fault in report.faults)
    received = sum(report.states.values())
    states = ", ".join(f"{count} {state}" for state, count in sorted(report.states.items()))
    yield f"{received} markers: {states or 'none'}; without faults {report.n_undisturbed} are accepted"
    yield from (f"  {count} x {reason}" for reason, count in report.reasons.items())
    samples = dict(report.samples)
    yield f"{samples.pop('received')} samples: {', '.join(f'{count} {name}' for name, count in samples.items())}"
    beside = f", {report.n_shifted} of them by the sample beside the event's" if report.n_shifted else ""
    yield f"{report.n_exact} accepted epochs are to the bit those of the undisturbed signal{beside}"
    for title, found in (("WRONG", report.wrong), ("UNBALANCED", report.unbalanced), ("MISSED", report.missed)):
        yield from (f"{title}: {text}" for text in found[:_NAMED])
        if len(found) > _NAMED:
            yield f"{title}: and {len(found) - _NAMED} more"
    yield "held" if report.held else "did not hold"
