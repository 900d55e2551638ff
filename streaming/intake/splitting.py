"""Samples into stretches without a gap: what continues the running one, what comes twice, and what begins a new one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.signal.chain import Chain
from ..records import Samples
from .clocks import Clock
from .recent import Recent
from .segments import Break, Segment
from .settings import IntakeSettings

# Off the line by more than this share of a sample is a gap, of stamps that do not jitter; this times their jitter, of
# stamps that do; and seconds while the jitter is being measured.
_OFF, _JITTERS, _LEARNING = 0.75, 1.5, 0.25
# By how many seconds samples may arrive sooner after their stamps than ever before: earlier, their clock has jumped.
_SOONER, _LAG_MEMORY = 0.02, 60.0
# Interruptions in this many seconds that are each said; further ones are counted.
_SAID_EACH, _SAID_WITHIN = 5, 10.0
# Stretches that markers can still be placed in; only a signal in shreds has so many in the time that they may be late.
_MOST_SEGMENTS = 64


class Splitter:
    """One session's stretches.

    Parameters
    ----------
    chain
        Opened for the signal.
    settings
        Of the session.
    clock
        Of the signal.
    reach
        Seconds from an event to the last sample that its epoch needs.
    dtype
        Of the epochs.
    collect
        Called with a stretch whose epochs are to be fetched, and whether it has ended.
    say
        Receives a sentence about a break, and its time.

    Attributes
    ----------
    segments
        In which markers can still be placed, oldest first.
    forgotten
        Whether there were older ones.
    counts
        Samples "used", "duplicate" and "nan", and "gaps".
    """

    def __init__(
        self,
        chain: Chain,
        settings: IntakeSettings,
        clock: Clock,
        *,
        reach: float,
        dtype: type[Any],
        collect: Callable[[Segment, bool], None],
        say: Callable[[str, float], None],
    ) -> None:
        self._chain, self._settings, self._clock = chain, settings, clock
        self._reach, self._dtype, self._collect, self._say = reach, dtype, collect, say
        plan = chain.plan
        self._sfreq = plan.input.sfreq
        self._recent = Recent(len(plan.input.channels), self._sfreq)
        self._lags: deque[tuple[float, float]] = deque()
        self._lags_after = -np.inf
        self._breaks: deque[float] = deque()
        self._next: Break | None = None
        self._tolerance = settings.gap
        self._n_unsaid = self._n_segments = 0
        self.segments: list[Segment] = []
        self.forgotten = False
        self.counts = dict.fromkeys(("used", "duplicate", "nan", "gaps"), 0)

    def learn_again(self) -> None:
        """Measure the jitter of the stamps anew: they are another source's."""
        self._tolerance = self._settings.gap

    def take(self, stamps: NDArray[np.float64], data: NDArray[np.float64], samples: Samples) -> None:
        """Take the next samples: stamps (n,), data (n_channels, n) in V or T, which came with `samples`."""
        bad = ~(np.isfinite(stamps) & np.isfinite(data).all(axis=0))
        edges = np.flatnonzero(np.diff(bad, prepend=not bad[0])).tolist() if bad.any() else [0]
        for start, stop in zip(edges, [*edges[1:], len(stamps)], strict=True):
            if bad[start]:
                self.counts["nan"] += stop - start
                self.end(Break(self._what_is_nan(stamps, data, start), nan=True), at=float(stamps[start]))
            else:
                self._take_numbers(stamps[start:stop], data[:, start:stop], samples)

    def _what_is_nan(self, stamps: NDArray[np.float64], data: NDArray[np.float64], column: int) -> str:
        if not np.isfinite(stamps[column]):
            return f"a sample's stamp was {stamps[column]}"
        row = int(np.flatnonzero(~np.isfinite(data[:, column]))[0])
        return f"channel {self._chain.plan.input.channels[row].name} was {data[row, column]}"

    def _take_numbers(self, stamps: NDArray[np.float64], data: NDArray[np.float64], samples: Samples) -> None:
        """Finite samples: into the running stretch as far as they continue it, then into a new one."""
        place, n = 0, len(stamps)
        while place < n:
            segment = self.running
            if segment is None:
                if self._is_repeated(stamps, data, place):
                    place += 1
                    continue
                segment = self._begin(float(stamps[place]), samples)
            learning = segment.learns > 0 and segment.n < segment.learns
            stop = min(n, place + segment.learns - segment.n) if learning else n
            if learning:
                tolerance = _LEARNING
            else:
                if self._tolerance is None:
                    self._tolerance = max(_OFF * segment.period, _JITTERS * segment.timeline.jitter)
                tolerance = self._tolerance
            taken = segment.timeline.extend(stamps[place:stop], tolerance)
            if taken == 0 and not self._is_repeated(stamps, data, place):
                # In time, and only not later than the stamp before, as of packets that overlap or stamps that jitter.
                if not self._recent.misses(float(stamps[place]), segment.period):
                    taken = segment.timeline.extend(stamps[place : place + 1], tolerance, back=True)
                if taken == 0:
                    self._interrupt(segment, float(stamps[place]))
                    continue
            if taken == 0:
                place += 1
                continue
            self._push(segment, stamps[place : place + taken], data[:, place : place + taken])
            place += taken

    def _is_repeated(self, stamps: NDArray[np.float64], data: NDArray[np.float64], place: int) -> bool:
        repeated = self._recent.has(float(stamps[place]), data[:, place])
        self.counts["duplicate"] += repeated
        return repeated

    def _push(self, segment: Segment, stamps: NDArray[np.float64], data: NDArray[np.float64]) -> None:
        self._recent.add(stamps, data)
        self.counts["used"] += len(stamps)
        segment.stream.push(data)
        self._collect(segment, False)

    @property
    def running(self) -> Segment | None:
        """The stretch that goes on; None before the first sample and behind a break."""
        return self.segments[-1] if self.segments and self.segments[-1].after is None else None

    def _begin(self, stamp: float, samples: Samples) -> Segment:
        learns = round(self._settings.learn * self._sfreq) if self._tolerance is None else 0
        known = self._clock.trusted_after
        # Where it was said that this is another process, its stamps say nothing more of its clock.
        was_said = bool(self.segments) and known > self.segments[-1].trusted_after
        trusted = known if was_said else max(self._trusted(stamp, samples), known)
        segment = Segment(
            self._chain,
            self._n_segments,
            before=self._next,
            trusted_after=trusted,
            learns=learns,
            late=self._settings.late,
            dtype=self._dtype,
        )
        self._n_segments += 1
        self.segments.append(segment)
        self._forget(stamp)
        return segment

    def _trusted(self, stamp: float, samples: Samples) -> float:
        """The local time after which the signal clock's offset has to be measured, to hold for what begins here.

        Stamps that went back, or that arrive sooner after their time than any before, are of a clock that has jumped.
        """
        if not self.segments:
            return -np.inf
        clock = self._clock
        last = next((s for s in reversed(self.segments) if clock.at(np.inf, s.trusted_after) is not None), None)
        if last is None:
            return samples.arrived
        lag = samples.arrived - float(samples.stamps[-1])
        sooner = bool(self._lags) and lag < min(lag for _, lag in self._lags) - _SOONER
        return samples.arrived if stamp <= last.timeline.newest or sooner else last.trusted_after

    def note_lag(self, samples: Samples) -> None:
        """How long after its stamp the newest sample arrived, of a clock that is trusted."""
        running = self.running
        if running is None or self._clock.at(np.inf, running.trusted_after) is None:
            return
        if running.trusted_after != self._lags_after:
            self._lags_after = running.trusted_after
            self._lags.clear()
        self._lags.append((samples.arrived, samples.arrived - float(samples.stamps[-1])))
        while self._lags[0][0] < samples.arrived - _LAG_MEMORY:
            self._lags.popleft()

    def _interrupt(self, segment: Segment, stamp: float) -> None:
        off = segment.timeline.off(stamp)
        if off > 0:
            text = f"no sample for {off + segment.timeline.period:.4g} s"
        else:
            text = f"the stamps went back by {-off:.4g} s"
        self.end(Break(text), at=stamp)

    def end(self, why: Break, *, at: float | None = None) -> None:
        """End the running stretch; that is said, of the stamp `at`, unless it is None: then others have said it."""
        self._next = why
        segment = self.running
        if segment is None:
            return
        segment.end(why)
        self.counts["gaps"] += 1
        self._collect(segment, True)
        if at is not None:
            self._say_break(why, at)

    def _say_break(self, why: Break, at: float) -> None:
        while self._breaks and not at - _SAID_WITHIN <= self._breaks[0] <= at:
            self._breaks.popleft()
        self._breaks.append(at)
        if len(self._breaks) > _SAID_EACH:
            self._n_unsaid += 1
            if len(self._breaks) % 100:
                return
        more = f" ({self._n_unsaid} interruptions before were not said one by one)" if self._n_unsaid else ""
        self._n_unsaid = 0
        self._say(f"the signal is interrupted: {why.text}{more}; the filters settle again", at)

    def _forget(self, newest: float) -> None:
        """Let go of stretches that no marker can ask for any more."""
        held = self._settings.late + self._reach + abs(self._chain.plan.window.first) / self._chain.plan.window.sfreq
        while len(self.segments) > 1 and (
            len(self.segments) > _MOST_SEGMENTS or not self.segments[0].timeline.newest >= newest - held
        ):
            self.segments.pop(0)
            self.forgotten = True
