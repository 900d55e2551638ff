"""The intake: what a source gives goes in, item by item; epochs, refusals and notices come out.

Nothing here has a thread or reads a clock, and nothing depends on how the samples were cut into chunks: they are worked
on when an epoch needs them, or when some have gathered, and every decision is made sample by sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.decoders.scale import TrainingStatistics
from ...runtime.errors import InputError
from ...runtime.signal.chain import Chain
from ...runtime.signal.stream import Outcome
from ..records import MARKERS, SIGNAL, ClockOffset, Item, Marker, Notice, Samples, SignalInfo
from .channels import Picked, pick
from .clocks import Clock
from .events import REFUSED, REJECTED, SKIPPED, Accepted, EpochTimes, Event, IntakeState, Refused, Said
from .gathered import Gathered
from .markers import Waiting, Waits, text_of, why_no_event
from .placing import Placed, Placer
from .scale import ScaleCheck
from .segments import Break, Segment
from .settings import IntakeSettings
from .splitting import Splitter
from .verdict import Judge

ENDED = "the session ended before the epoch did"
# Seconds of samples that are worked on at a time, however many came together.
_PIECE = 0.1
# Epochs that end later than this behind their markers, in seconds, are foreseen: the markers have come by then, though
# sources look for them only every 40 ms.
_FORESEEN = 0.08
# By how many seconds stamps fall back where their clock was set; samples that come out of order do so by less.
_SET_BACK = 0.05
# Clock offsets of one computer's streams differ by no more seconds.
_SAME_CLOCK = 0.005
# Epochs that are remembered, to name them where the clock turns out to have jumped.
_GIVEN = 100


class Intake:
    """One session's way from items to epochs.

    Parameters
    ----------
    chain
        Opened for the decoder's channels and the source's rate, as :func:`.chain.live_chain` does.
    settings
        What the session asks for.
    training
        What the decoder knows of its training data, to notice a wrong scale; None where it is not known.
    dtype
        Of the epochs: np.float32, which decoders take, or np.float64 as the chain computes them.
    """

    def __init__(
        self,
        chain: Chain,
        settings: IntakeSettings,
        *,
        training: TrainingStatistics | None = None,
        dtype: type[Any] = np.float32,
    ) -> None:
        self._chain, self._settings = chain, settings
        plan = chain.plan
        self._sfreq = plan.input.sfreq
        # Seconds from an event to the last sample that its epoch needs.
        self._reach = max(0.0, (plan.window.first + plan.window.n_times - 1) / plan.window.sfreq + chain.latency)
        self._clocks = {SIGNAL: Clock(), MARKERS: Clock()}
        scale = None if training is None else ScaleCheck(training, chain.output.unit)
        self._judge = Judge(chain, self._clocks, scale)
        self._splitter = Splitter(
            chain,
            settings,
            self._clocks[SIGNAL],
            reach=self._reach,
            dtype=dtype,
            collect=self._collect,
            say=lambda text, at: self._say("gap", SIGNAL, at, text),
        )
        self._placer = Placer(self._splitter, self._clocks, settings, reach=self._reach)
        self._waiting, self._placed = Waiting(), dict[int, Placed]()
        self._given: deque[Placed] = deque(maxlen=_GIVEN)
        self._gathered = Gathered(self._sfreq, self._reach, self._clocks)
        self._info: SignalInfo | None = None
        self._picked: Picked | None = None
        self._problem: str | None = None
        self._lost = set[str]()
        self._counts = dict.fromkeys(("samples", "unusable", "lost"), 0)
        self._events: list[Event] = []
        self._now = 0.0
        # When the last samples came that were worked on, and their last stamp.
        self._worked = self._last_stamp = -np.inf

    def start(self, info: SignalInfo) -> None:
        """Find the channels and units in what the source says of itself.

        Raises
        ------
        InputError
            A channel is missing, its unit is unknown, or the rate is another one.
        """
        self._picked = pick(info, self._chain.plan.input.channels, self._sfreq, self._settings.unit)
        self._info, self._problem = info, None

    def converted(self, data: NDArray[np.float64]) -> NDArray[np.float64]:
        """Samples of the source, (n_rows, n), as the decoder's channels in V or T, before any filter."""
        if self._picked is None:
            raise InputError("the source has not said what it is: call start() first")
        return self._picked(data)

    def step(self, items: Sequence[Item], now: float) -> list[Event]:
        """Take what came, in the order in which it came, at the local time `now`; what became of it."""
        self._now = now
        for item in items:
            if isinstance(item, Samples):
                self._gathered.add(item)
            elif isinstance(item, Marker):
                self._take_marker(item)
            elif isinstance(item, ClockOffset):
                self._take_offset(item)
            else:
                self._work()
                self._take_notice(item)
        if not self._gathered:
            self._place()  # a marker may have come after all samples of its epoch
        elif self._gathered.is_due(self._placed, self._waiting.first().marker if self._waiting else None):
            self._work()
        self._give_up_waiting()
        return self._pop()

    def finish(self, now: float) -> list[Event]:
        """End the session: every marker that still waits is refused."""
        self._now = now
        self._work()
        for segment in self._splitter.segments:
            for outcome in segment.stream.finish():
                self._take_outcome(outcome, ENDED)
        while self._waiting:
            self._refuse(self._waiting.pop(), REFUSED, ENDED)
        return self._pop()

    def state(self, now: float) -> IntakeState:
        """How the signal is."""
        segment = self._splitter.segments[-1] if self._splitter.segments else None
        running = self._splitter.running
        clock = self._clocks[SIGNAL].newest
        newest = self._gathered.newest
        known = None if newest is None or clock is None else newest + clock.offset
        settles = self._chain.warm_up
        if running is not None:
            settles = max(settles, running.learns * running.period) - running.n * running.period
        return IntakeState(
            segment=-1 if segment is None else segment.number,
            sfreq=1 / running.timeline.period if running is not None and running.n > self._sfreq / 2 else None,
            nominal=self._sfreq,
            sample_age=None if known is None else now - known,
            offset=None if clock is None else clock.offset,
            uncertainty=None if clock is None else clock.uncertainty,
            **{f"n_{name}": n for name, n in (self._counts | self._splitter.counts).items()},
            warm_up_left=max(0.0, settles),
            n_waiting=len(self._waiting) + len(self._placed),
            problem=self._problem,
        )

    def due(self) -> float | None:
        """When, on the local clock, the last sample of the next epoch is expected; None where none waits for one.

        Of a marker whose sample is not known yet, by the clocks as they were last measured. Where epochs are over so
        soon behind their markers that these cannot be known before, always: since ever.
        """
        if self._reach < _FORESEEN:
            return -np.inf
        own, signal = self._clocks[MARKERS].newest, self._clocks[SIGNAL].newest
        if signal is None:
            return None
        placed = self._gathered.next_due(self._placed)
        dues = [] if placed is None else [placed + 0.5 / self._sfreq + signal.offset]
        if self._waiting and own is not None:
            dues.append(self._waiting.first().marker.stamp + own.offset + self._reach)
        return min(dues, default=None)

    # Markers

    def _take_marker(self, marker: Marker) -> None:
        no_event = why_no_event(marker, self._settings.events)
        if no_event is not None:
            self._refuse(marker, SKIPPED, no_event)
        elif not np.isfinite(marker.stamp):
            self._refuse(marker, REFUSED, f"the marker's time is {marker.stamp}")
        elif len(self._waiting) + len(self._placed) >= self._settings.most_waiting:
            self._refuse(marker, REFUSED, f"{self._settings.most_waiting:,} markers wait for their epochs already")
        else:
            after = self._clocks[MARKERS].trusted_after
            trusted = after if marker.arrived >= after else -np.inf
            newest = -np.inf if self._gathered.newest is None else self._gathered.newest
            waits = Waits(marker=marker, trusted_after=trusted, newest=newest, newest_came=self._gathered.came)
            self._waiting.add(waits)

    def _place(self) -> None:
        """Find the samples of all markers behind which a sample has come."""
        while self._waiting:
            found = self._placer.locate(self._waiting.first())
            if found is None or isinstance(found, str):
                return
            marker = self._waiting.pop()
            if isinstance(found, Placed):
                self._mark(found)
            else:
                self._refuse(marker, *found)

    def _mark(self, placed: Placed) -> None:
        """Ask the stretch for the epoch, where one may come."""
        segment, sample, marker = placed.segment, placed.sample, placed.marker
        begins = segment.begins(sample)
        if not placed.uncertainty <= self._settings.max_uncertainty:
            most = 1000 * self._settings.max_uncertainty
            self._refuse(
                marker,
                REFUSED,
                f"the clock offsets are uncertain by {1000 * placed.uncertainty:.3g} ms, and {most:.3g} ms are allowed",
            )
        elif begins < 0:
            if segment.before is None:
                self._refuse(marker, REFUSED, "the epoch begins before the signal's first sample")
            else:
                self._refuse_at(marker, segment.before)
        elif not segment.stream.holds(sample):
            self._refuse(marker, REFUSED, self._placer.too_late())
        else:
            self._placed[marker.ordinal] = placed
            last = (segment.timeline.time(sample) or segment.timeline.newest) + self._reach
            self._gathered.expect(last - segment.period / 2, marker.ordinal, self._placed)
            segment.stream.mark(sample, marker.ordinal)
            self._collect(segment, False)
            if segment.after is not None:
                self._collect(segment, True)

    def _refuse_at(self, marker: Marker, why: Break) -> None:
        self._refuse(marker, REJECTED if why.nan else REFUSED, f"the epoch touches a break in the signal: {why.text}")

    def _refuse(self, marker: Marker, state: str, reason: str) -> None:
        self._events.append(
            Refused(ordinal=marker.ordinal, text=text_of(marker), state=state, reason=reason, at=self._now)
        )

    def _give_up_waiting(self) -> None:
        """Refuse markers whose clock, or the signal's, was not measured in time."""
        while self._waiting:
            waits = self._waiting.first()
            if self._now - waits.marker.arrived <= self._settings.late:
                return
            found = self._placer.locate(waits)
            if not isinstance(found, str):
                return
            self._refuse(
                self._waiting.pop(),
                REFUSED,
                f"the clock of the {found} was not compared with this computer's within {self._settings.late:g} s",
            )

    # Epochs

    def _collect(self, segment: Segment, finish: bool) -> None:
        for outcome in segment.stream.finish() if finish else segment.stream.pop():
            self._take_outcome(outcome, None)

    def _take_outcome(self, outcome: Outcome, at_end: str | None) -> None:
        placed = self._placed.pop(outcome.id)  # type: ignore[call-overload]
        marker, segment = placed.marker, placed.segment
        if outcome.data is None and not outcome.rejected:
            if segment.after is not None:
                self._refuse_at(marker, segment.after)
            else:
                self._refuse(marker, REFUSED, str(at_end or outcome.reason))
            return
        state, reason = self._judge.verdict(placed, outcome)
        data = outcome.data
        if data is None or reason is not None:
            self._refuse(marker, state, str(reason))
            return
        self._given.append(placed)
        sample_time = segment.timeline.time(placed.sample)
        at = placed.local if sample_time is None else sample_time + placed.signal.offset
        stamp = self._gathered.newest
        newest = placed.local if stamp is None else stamp + placed.signal.offset
        times = EpochTimes(
            marker=placed.local,
            marker_arrived=marker.arrived,
            epoch_end=at + self._reach,
            ready=self._now,
            sample_age=self._now - newest,
            offset=placed.signal.offset,
            uncertainty=placed.uncertainty,
        )
        self._events.append(
            Accepted(
                ordinal=marker.ordinal,
                text=text_of(marker),
                data=data,
                segment=segment.number,
                sample=placed.sample,
                times=times,
            )
        )

    # Clocks and notices

    def _take_offset(self, item: ClockOffset) -> None:
        clock = self._clocks[item.stream]
        before = clock.newest
        change = clock.add(item)
        if change is None or before is None:
            return
        wrong = [f"{placed.marker.ordinal}" for placed in self._given if self._judge.is_doubtful(placed)]
        given = f"the epochs of the markers {', '.join(wrong)} were given already, and" if wrong else "epochs"
        text = (
            f"the clock of the {item.stream} jumped by {change:+.4g} s between two measurements of its offset: {given} "
            "may be of the wrong time; those that still wait are refused"
        )
        self._say("clock", item.stream, item.at, text)

    def _take_notice(self, notice: Notice) -> None:
        self._events.append(Said(notice=notice))
        if notice.kind == "lost":
            self._lost.add(notice.stream)
        # After mere silence or delay, the same process goes on: its stamps say whether anything is missing.
        is_another = notice.kind == "changed" or (notice.kind == "recovered" and notice.stream in self._lost)
        if is_another and notice.stream in self._clocks:
            self._lost.discard(notice.stream)
            self._clocks[notice.stream].distrust(notice.at)
        if notice.stream != SIGNAL:
            return
        self._counts["lost"] += notice.n_lost
        if is_another or notice.kind == "dropped":
            self._splitter.end(Break(notice.text))
        if notice.kind == "changed" and notice.info is not None:
            self._splitter.learn_again()
            try:
                self.start(notice.info)
            except InputError as error:
                self._info, self._picked = notice.info, None
                self._set_problem(str(error), notice.at)

    def _set_problem(self, text: str, at: float) -> None:
        if self._problem != text:
            self._problem = text
            self._say("changed", SIGNAL, at, f"no sample can be used: {text}")

    def _say(self, kind: str, stream: str, at: float, text: str) -> None:
        self._events.append(Said(notice=Notice(kind=kind, stream=stream, at=at, text=text)))

    # Samples

    def _work(self) -> None:
        for samples in self._gathered.take():
            self._take_samples(samples)
        self._place()

    def _take_samples(self, samples: Samples) -> None:
        self._counts["samples"] += len(samples.stamps)
        fell_back = bool((np.diff(samples.stamps, prepend=self._last_stamp) < -_SET_BACK).any())
        # Of another process, which was said, the clock of its markers is known or not as that of its signal is.
        if fell_back and self._one_clock() and self._worked >= self._clocks[SIGNAL].trusted_after:
            self._placer.set_back = (self._worked, samples.arrived)
        self._worked, self._last_stamp = samples.arrived, float(samples.stamps[-1])
        if self._picked is not None and len(samples.data) != self._picked.n_rows:
            self._picked = None
            n_rows = 0 if self._info is None else len(self._info.channels)
            text = f"the samples have {len(samples.data)} channels, and the source declares {n_rows}"
            self._splitter.end(Break(text))
            self._set_problem(text, samples.arrived)
        if self._picked is None:
            self._counts["unusable"] += len(samples.stamps)
            return
        size = max(1, round(_PIECE * self._sfreq))
        for first in range(0, len(samples.stamps), size):
            part = slice(first, first + size)
            data = self._picked(np.asarray(samples.data, np.float64)[:, part])
            self._splitter.take(np.asarray(samples.stamps, np.float64)[part], data, samples)
            self._place()
        self._splitter.note_lag(samples)

    def _one_clock(self) -> bool:
        """Whether signal and markers are stamped by one computer, as far as their offsets tell."""
        one, other = (self._clocks[stream].newest for stream in (SIGNAL, MARKERS))
        return one is not None and other is not None and abs(one.offset - other.offset) <= _SAME_CLOCK

    def _pop(self) -> list[Event]:
        events, self._events = self._events, []
        return events
