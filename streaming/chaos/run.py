"""A recording goes through faults and the intake, and every outcome is compared with what is true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...runtime.signal.chain import Chain
from ..intake.events import Accepted
from ..intake.intake import Intake
from ..intake.settings import IntakeSettings
from ..records import Item, SignalInfo
from .books import Books, counted, lost
from .check import Check
from .original import gather
from .plan import Fault
from .report import Report
from .source import Injector
from .truth import Truth


class Step(Protocol):
    """What a session was given at the local time `now`: a step of a recording of ours, or of a replay."""

    @property
    def now(self) -> float: ...

    @property
    def items(self) -> Sequence[Item]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Suffered:
    """The report, and the epochs that were accepted: without faults, and with them."""

    report: Report
    undisturbed: Sequence[Accepted]
    accepted: Sequence[Accepted]


def suffer(
    steps: Sequence[Step], info: SignalInfo, chain: Chain, settings: IntakeSettings, faults: Iterable[Fault]
) -> Suffered:
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
    undisturbed = Books(Intake(chain, settings), info)
    for step in steps:
        undisturbed.take(step.items, step.now)
    undisturbed.finish(steps[-1].now if steps else 0.0)
    truth = Truth()
    injector = Injector(iter(faults), info, truth)
    intake = Intake(chain, settings)
    books = Books(intake, info)
    for step in steps:
        books.take(injector.step(step.items), step.now)
    last = steps[-1].now if steps else 0.0
    books.take(injector.finish(last), last)
    books.finish(last)
    original = gather(item for step in steps for item in step.items)
    signal = intake_units(chain, settings, info).converted(original.data) if original.n_samples else original.data
    check = Check(original=original, signal=signal, chain=chain, truth=truth)
    wrong, n_exact, n_shifted = check.wrong(books.accepted)
    report = Report(
        faults=injector.happened,
        seconds=original.n_samples / info.sfreq,
        states=books.states,
        reasons=dict(Counter(refused.reason.partition(":")[0] for refused in books.refused).most_common()),
        said=books.said,
        samples=counted(books.state),
        n_undisturbed=len(undisturbed.accepted),
        n_exact=n_exact,
        n_shifted=n_shifted,
        wrong=wrong,
        unbalanced=[*undisturbed.unbalanced, *books.unbalanced, *lost(books.state, truth)],
        missed=check.missed(undisturbed.accepted, books.accepted, books.refused, injector.happened, info.sfreq),
    )
    return Suffered(report=report, undisturbed=undisturbed.accepted, accepted=books.accepted)


def intake_units(chain: Chain, settings: IntakeSettings, info: SignalInfo) -> Intake:
    """An intake that knows the source's units, of which nothing else is asked."""
    intake = Intake(chain, settings)
    intake.start(info)
    return intake
