"""A whole session under faults: acquisition, recording, decoding, books and page, on a recording and without a clock.

Everything is what ``md-stream run`` runs, but for the decoder, which gives back what it is given.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...runtime.backends.base import Backend
from ...runtime.signal.chain import Chain
from ..clock import now as local_now
from ..dashboard.hub import Hub
from ..dashboard.messages import Session as SessionMessage
from ..dashboard.server import DashboardServer
from ..decoding.decode import DecodeSettings
from ..intake.settings import IntakeSettings
from ..recording.folder import SessionFolder
from ..recording.items import read_steps
from ..recording.names import SIGNAL_FILE
from ..recording.opened import open_session
from ..records import Item, Marker, Samples, SignalInfo
from ..session.acquisition import Acquisition, AcquisitionSettings
from ..session.live import Ended, LiveSession
from ..session.outputs import Outputs
from ..session.settings import LiveSettings
from ..sources.base import Wanted
from ..sources.replay import Replay
from ..sources.replay import Step as ReplayStep
from .faults.session import REASONS
from .parts import PATIENCE, Disk, Parts
from .plan import Fault, Plan
from .report import SessionReport
from .rig import KeptLedger, KeptResults, KeptSource, TimedSource, WatchedFeed
from .run import Step, Suffered
from .silent_page import SilentPage
from .source import FaultySource
from .stand_in import StandIn, statistics_of

_NAME = "chaos"
# Real seconds that a page may leave unread: a session without a clock is soon over.
_PAGE_PATIENCE = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What is run: a recording, and how it is cut into epochs.

    Attributes
    ----------
    steps, info, chain, settings
        See :func:`.run.suffer`.
    files
        The folder with the chain's files, where it names any.
    """

    steps: Sequence[Step]
    info: SignalInfo
    chain: Chain
    settings: IntakeSettings
    files: Path


def endure(given: Given, plan: Plan, suffered: Suffered, *, patience: float = 4 * PATIENCE) -> SessionReport:
    """Run a session of a recording with faults of its source and of its own parts, and check what became of it.

    Parameters
    ----------
    given
    plan
        Of its source the faults that were suffered.
    suffered
        What the intake alone made of them: the session has to accept the same epochs, to the bit. At least one was
        accepted without faults.
    patience
        Real seconds beside the recording's length after which a session is said to hang.
    """
    steps = given.steps
    with ExitStack() as stack:
        # A session that hangs may still write when its folder is removed.
        scratch = tempfile.TemporaryDirectory(prefix="md-stream-chaos-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(scratch)) / "session"
        run = _Run(stack, given, plan, suffered, folder)
        ended = run.ended(patience + steps[-1].now - steps[0].now)
        return SessionReport(
            faults=run.happened,
            states={} if ended is None else {name: n for name, n in ended.totals.states.items() if n},
            failed=len(run.failed()),
            recording="stopped" if run.stopped else "whole",
            said=run.said,
            broken=[run.crash or "the session hangs"] if ended is None else list(run.broken(ended)),
        )


class _Run:
    """One session, put together, run and looked at."""

    def __init__(self, stack: ExitStack, given: Given, plan: Plan, suffered: Suffered, folder: Path) -> None:
        self._suffered, self._folder = suffered, folder
        self.said: list[str] = []
        self.crash = ""
        hub = Hub()
        self.parts = Parts(disk=Disk(), open_page=lambda: self._page(hub, stack))
        layout = given.chain.layout
        training = statistics_of(suffered.undisturbed, layout)
        self._stand_in = StandIn(training, self.parts)
        self._timed = TimedSource(
            Replay(given.info, cast(Sequence[ReplayStep], given.steps), speed=None),
            plan.session,
            self.parts,
            given.info.sfreq,
        )
        self._kept = KeptSource(FaultySource(self._timed, iter(plan.source)))
        self._acquisition = Acquisition(
            self._kept,
            AcquisitionSettings(
                source=_NAME,
                wanted=Wanted(modality=layout.modality),
                layout=layout,
                training=None,
                folder=given.files,
                intake=given.settings,
                record=folder,
                preview=True,
            ),
            local_now,
            write=self.parts.disk.write,
        )
        self._feed = WatchedFeed(self._acquisition, self.parts, self._stand_in)
        write = self.parts.disk.write
        self._written = KeptLedger(SessionFolder.create(folder, {}, id=_NAME, on_stop=self.said.append, write=write))
        stack.callback(self._written.close)
        self._decoded = KeptResults()
        self._looks_on = hub.join(lambda: None)
        self._session = LiveSession(
            [cast(Backend[Any], self._stand_in)],
            self._feed,
            LiveSettings(decode=DecodeSettings(session=_NAME, semantic=False), pictures=False),
            SessionMessage(bundle=_NAME, source=_NAME, modality=layout.modality),
            Outputs(folder=self._written, hub=hub, outlet=self._decoded, say=self.said.append),
            now=local_now,
        )

    @property
    def happened(self) -> list[Fault]:
        """The faults of the session's parts that have begun."""
        return self._timed.happened

    def ended(self, patience: float) -> Ended | None:
        """Run it; None where it has not ended after so many seconds, or has crashed."""
        found: list[Ended] = []

        def run() -> None:
            try:
                found.append(self._session.run())
            except Exception as error:
                self.crash = f"the session crashed ({type(error).__name__}: {error})"

        thread = threading.Thread(target=run, name="session", daemon=True)
        thread.start()
        thread.join(patience)
        return found[0] if found else None

    @property
    def stopped(self) -> bool:
        """Whether the recording was stopped."""
        state = self._acquisition.recording
        return state is not None and bool(state.reason)

    def failed(self) -> list[int]:
        """The markers that a fault of the decoder has cost."""
        return [ordinal for ordinal, kind in self._stand_in.hit.items() if kind in REASONS and self._refused(ordinal)]

    def _refused(self, ordinal: int) -> bool:
        return self._written.last.get(ordinal, {}).get("state") == "refused"

    def _page(self, hub: Hub, stack: ExitStack) -> SilentPage:
        server = stack.enter_context(DashboardServer(hub, said=self.said.append, patience=_PAGE_PATIENCE))
        return stack.enter_context(SilentPage(server.address()))

    def broken(self, ended: Ended) -> Iterator[str]:
        """What does not hold."""
        if ended.fault:
            yield f"the session ended by a fault: {ended.fault}"
        if any(held.gave_up for held in self.parts.waits):
            yield "the session waited for what did not answer"
        yield from self._unbalanced(ended)
        yield from self._wrong()
        yield from self._lost()
        yield from self._unseen(ended)

    def _unbalanced(self, ended: Ended) -> Iterator[str]:
        totals, n_markers = ended.totals, sum(isinstance(item, Marker) for item in self._kept.given)
        if not totals.balanced or totals.states["pending"] or totals.received != n_markers:
            yield f"{n_markers} markers came, and the books have {totals}"

    def _wrong(self) -> Iterator[str]:
        """Epochs that are not those of the intake alone, or are not what was decoded; markers in a wrong state."""
        expected = {one.ordinal: one.data for one in self._suffered.accepted}
        accepted = {one.ordinal: one.data for one in self._feed.accepted}
        for ordinal in sorted(expected.keys() | accepted.keys()):
            if ordinal not in expected or ordinal not in accepted:
                yield f"marker {ordinal} is accepted in the session or by the intake alone, and not by both"
            elif not np.array_equal(expected[ordinal], accepted[ordinal]):
                yield f"the epoch of marker {ordinal} is another one in the session"
        for ordinal in accepted:
            entry, response = self._written.last[ordinal], self._stand_in.expected.get(ordinal)
            reason = REASONS.get(self._stand_in.hit.get(ordinal, ""))
            state = "rejected" if response is None else "decoded" if reason is None else "refused"
            if entry["state"] != state or not str(entry.get("reason", "")).startswith(reason or ""):
                yield f"marker {ordinal} is {entry['state']} ({entry.get('reason', '')}), and had to be {state}"
            elif response is not None and reason is None and not self._is(ordinal, response):
                yield f"what was decoded for marker {ordinal} is not its epoch"

    def _is(self, ordinal: int, response: NDArray[np.float32]) -> bool:
        decoded = self._decoded.responses.get(ordinal)
        return decoded is not None and np.array_equal(decoded, response)

    def _lost(self) -> Iterator[str]:
        """What is in the files is what came, whole or up to a full disk, which was said."""
        given, state, full = self._kept.given, self._acquisition.recording, self.parts.disk.full
        found = [item for step in read_steps(self._folder / SIGNAL_FILE) for item in step.items]
        if len(found) > len(given) or not all(map(same_item, found, given)):
            yield "the recording is not what came"
        if state is not None and not full and (len(found) < len(given) or state.n_dropped_samples or state.reason):
            yield f"the recording has {len(found)} of {len(given)} items, and the disk was not full ({state.reason})"
        session = open_session(self._folder)
        last = {line["ordinal"]: line for line in session.ledger() if "ordinal" in line}
        decoded = [line["ordinal"] for line in session.results() if line["kind"] == "decoded"]
        if not self._written.stopped and (last != self._written.last or decoded != list(self._decoded.responses)):
            yield "the session's files are not what its books were"
        for reason in filter(None, (self._written.stopped, "" if state is None else state.reason)):
            if not full or "the disk is full" not in reason or not any(reason in line for line in self.said):
                yield f"the disk was {'full' if full else 'not full'}, and it was not said so: {reason}"

    def _unseen(self, ended: Ended) -> Iterator[str]:
        """Who reads the page was shown everything, whoever else does not."""
        shown = [json.loads(text) for text in self._looks_on.take()] if self._looks_on is not None else []
        books = [message for message in shown if message["kind"] == "ledger"]
        over = [message for message in shown if message["kind"] == "session" and message["ended"]]
        if not over or not books or books[-1]["totals"] != ended.totals.states:
            yield "the page does not show how the session ended"


def same_item(one: Item, other: Item) -> bool:
    """Whether a recorded item is, to the bit, the one that was given."""
    if isinstance(one, Samples) and isinstance(other, Samples):
        same = all(
            np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in ("stamps", "data")
        )
        return same and one.arrived == other.arrived
    return one == other
