"""A recording through the live path, in several partitions into chunks, against the offline reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError
from ...runtime.signal.chain import Chain, open_chain
from ...runtime.signal.units import given_unit, unit_size
from ..files.recorded import Recorded
from ..intake.events import REJECTED, SKIPPED, Accepted, Refused
from ..intake.intake import Intake
from ..intake.settings import IntakeSettings
from ..records import MARKERS, SIGNAL, Item, Marker, Samples
from .reference import BEFORE, BREAK, NAN, NO_SPREAD, PEAK, WARM_UP, Reference, Verdict, place, stretches

F64 = NDArray[np.float64]
TOLERANCE = 1e-12
"""Of a value, relative to the largest of the recording: what float64 sums in another order may differ by."""
# By how many seconds markers come before or after their samples in a partition that is drawn.
_MARKERS_OFF = 0.3
# Stamps that are off the period by less than this share of it are regular.
_REGULAR = 0.1
# Bytes of a marker that can be an event.
_LONGEST_EVENT = 4096
_MOST_SHOWN = 10


@dataclass(kw_only=True)
class Report:
    """What was compared.

    Attributes
    ----------
    n_markers, n_events
        Markers of the recording, and those among them that are events.
    n_accepted
        Epochs that the live path gave, of which `n_identical` have the very bits of the reference.
    refused
        Kind of reason -> number of events.
    largest_error
        Over all values, relative to the largest value of the recording.
    n_apart
        Events that live and reference place one sample apart, which only stamps that jitter can cause.
    partitions
        Names of the partitions, all of which gave the same bits if nothing is in `differences`.
    differences
        What is not equal, a sentence each.
    """

    n_markers: int
    n_events: int
    n_accepted: int = 0
    n_identical: int = 0
    n_apart: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    largest_error: float = 0.0
    partitions: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether live and offline agree."""
        return not self.differences and self.largest_error <= TOLERANCE

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        about = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**about, "differences": self.differences[:_MOST_SHOWN], "equal": self.equal, "tolerance": TOLERANCE}


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A recording and how it becomes epochs: channels that `signal` starts with, and what holds for the live path."""

    recorded: Recorded
    signal: Mapping[str, Any]
    names: tuple[str, ...]
    settings: IntakeSettings
    folder: Path | None = None

    def chain(self) -> Chain:
        """The live path's chain."""
        known = {channel.name: channel for channel in self.recorded.info.channels}
        missing = [name for name in self.names if name not in known]
        if missing:
            raise InputError(f"the recording has no channel {missing[0]}: it has {', '.join(list(known)[:8])}")
        return open_chain(self.signal, [known[name] for name in self.names], self.recorded.info.sfreq, self.folder)


def verify(case: Case, *, n_partitions: int = 3, seed: int = 0) -> Report:
    """Compare.

    Parameters
    ----------
    case
        What is compared; `case.settings.gap` None takes one that fits the recording's stamps.
    n_partitions
        How many ways of cutting into chunks: samples of 10 ms, then drawn ones, with chunks that are empty and markers
        that come before and after their samples.
    seed
        Of what is drawn.
    """
    recorded, settings = case.recorded, case.settings
    if settings.gap is None:
        settings = _with_gap(settings, _fitting_gap(recorded))
    rng = np.random.default_rng(seed)
    runs: list[dict[int, Accepted | Refused]] = []
    report = Report(n_markers=len(recorded.markers), n_events=0)
    for number in range(max(1, n_partitions)):
        drawn = number > 0
        report.partitions.append(f"drawn {number}" if drawn else "10 ms")
        runs.append(_live(case, settings, rng if drawn else None))
    for name, run in zip(report.partitions[1:], runs[1:], strict=True):
        report.differences += _unlike(runs[0], run, f"partition {name!r}")
    _against_reference(case, settings, runs[0], report)
    return report


def _with_gap(settings: IntakeSettings, gap: float) -> IntakeSettings:
    return replace(settings, gap=gap)


def _fitting_gap(recorded: Recorded) -> float:
    """Three quarters of a sample, or three times what all but a few stamps in a thousand are off by."""
    period = 1 / recorded.info.sfreq
    off = np.abs(np.diff(recorded.stamps) - period)
    usual = float(np.quantile(off, 0.995)) if len(off) else 0.0
    return 0.75 * period if usual < _REGULAR * period else max(0.75 * period, 3 * usual)


def local_times(recorded: Recorded, stream: str, stamps: F64) -> F64:
    """Stamps on the local clock, by the last offset that was measured before each."""
    found = sorted((o.at, o.offset) for o in recorded.offsets if o.stream == stream)
    at, offsets = np.array([one[0] for one in found]), np.array([one[1] for one in found])
    times: F64 = stamps + offsets[np.maximum(0, np.searchsorted(at - offsets, stamps, side="right") - 1)]
    return times


def to_signal_clock(recorded: Recorded, times: F64) -> F64:
    """Local times on the clock of the signal's stamps."""
    found = sorted((o.at, o.offset) for o in recorded.offsets if o.stream == SIGNAL)
    at, offsets = np.array([one[0] for one in found]), np.array([one[1] for one in found])
    stamps: F64 = times - offsets[np.maximum(0, np.searchsorted(at, times, side="right") - 1)]
    return stamps


def _live(case: Case, settings: IntakeSettings, rng: np.random.Generator | None) -> dict[int, Accepted | Refused]:
    intake = Intake(case.chain(), settings, dtype=np.float64)
    intake.start(case.recorded.info)
    found = dict[int, Accepted | Refused]()
    now = 0.0
    for now, items in partition(case.recorded, rng):
        for event in intake.step(items, now):
            if isinstance(event, Accepted | Refused):
                found[event.ordinal] = event
    for event in intake.finish(now):
        if isinstance(event, Accepted | Refused):
            found[event.ordinal] = event
    return found


def partition(
    recorded: Recorded, rng: np.random.Generator | None, *, chunk: float = 0.01
) -> Iterator[tuple[float, list[Item]]]:
    """The recording cut into chunks, each with the local time at which it comes.

    Parameters
    ----------
    recorded
        A marker's ordinal is its place in it.
    rng
        None for chunks of one size, with markers at their samples; otherwise chunks are drawn, empty ones and single
        samples among them, and markers come up to 0.3 s before or after their samples.
    chunk
        Seconds of a chunk; 0 for single samples.
    """
    n = len(recorded.stamps)
    local = local_times(recorded, SIGNAL, recorded.stamps)
    marked = local_times(recorded, MARKERS, np.array([stamp for stamp, _ in recorded.markers]))
    sfreq = recorded.info.sfreq
    off = np.zeros(len(marked)) if rng is None else rng.uniform(-_MARKERS_OFF, _MARKERS_OFF, len(marked))
    places: list[tuple[int, Item]] = []
    for item in recorded.offsets:
        first = item is next(o for o in recorded.offsets if o.stream == item.stream)
        places.append((0 if first else int(np.searchsorted(local, item.at)), item))
    for number, (stamp, raw) in enumerate(recorded.markers):
        arrived = float(marked[number] + off[number])
        marker = Marker(ordinal=number, stamp=stamp, arrived=max(arrived, float(marked[number])), raw=raw)
        places.append((int(np.searchsorted(local, arrived)), marker))
    places.sort(key=lambda one: one[0])
    place = 0
    while place < n or places:
        size = max(1, round(chunk * sfreq)) if rng is None else int(rng.geometric(1 / (2 + 0.02 * sfreq))) - 1
        stop = min(n, place + size)
        items: list[Item] = []
        while places and (places[0][0] <= place or place == n):
            items.append(places.pop(0)[1])
        if places:
            stop = min(stop, max(place, places[0][0]))
        if stop > place or rng is not None:
            arrived = float(local[min(max(stop - 1, 0), n - 1)]) if n else 0.0
            items.append(Samples(stamps=recorded.stamps[place:stop], data=recorded.read(place, stop), arrived=arrived))
        place = stop
        yield (float(local[place - 1]) if place else 0.0), items


def _unlike(first: Mapping[int, Accepted | Refused], other: Mapping[int, Accepted | Refused], name: str) -> list[str]:
    """Where two partitions differ, to the bit."""
    found = []
    for ordinal in sorted({*first, *other}):
        a, b = first.get(ordinal), other.get(ordinal)
        if isinstance(a, Accepted) and isinstance(b, Accepted):
            if not np.array_equal(a.data, b.data):
                found.append(f"marker {ordinal}: {name} gives other values than the first one")
        elif isinstance(a, Refused) and isinstance(b, Refused):
            if (a.state, a.reason) != (b.state, b.reason):
                found.append(f"marker {ordinal}: {name} says {b.reason!r}, the first one {a.reason!r}")
        else:
            found.append(f"marker {ordinal}: {name} gives {_short(b)}, the first one {_short(a)}")
    return found


def _short(event: Accepted | Refused | None) -> str:
    if event is None:
        return "nothing"
    return "an epoch" if isinstance(event, Accepted) else f"{event.state} ({event.reason})"


def _against_reference(
    case: Case, settings: IntakeSettings, live: Mapping[int, Accepted | Refused], report: Report
) -> None:
    recorded = case.recorded
    recorded, data = _once(recorded, _in_si(case))
    found = stretches(recorded.stamps, data, recorded.info.sfreq, settings.gap or 0.0)
    times, regular = _times(recorded, [(one.start, one.stop) for one in found])
    marked = local_times(recorded, MARKERS, np.array([stamp for stamp, _ in recorded.markers]))
    marked = to_signal_clock(recorded, marked)
    expected: dict[int, Verdict] = {}
    wanted: dict[int, dict[int, int]] = {}
    for number, (_, raw) in enumerate(recorded.markers):
        text = raw.decode("utf-8", "replace")
        is_event = not settings.events or any(fnmatchcase(text, pattern) for pattern in settings.events)
        event = live.get(number)
        if not is_event or not text.strip() or len(raw) > _LONGEST_EVENT:
            if not isinstance(event, Refused) or event.state != SKIPPED:
                report.differences.append(f"marker {number}: it is no event, and live gives {_short(event)}")
            continue
        report.n_events += 1
        where = place(float(marked[number]), times, found, recorded.info.sfreq)
        if isinstance(where, str):
            expected[number] = Verdict(epoch=None, why=where)
            continue
        stretch, sample = where
        if isinstance(event, Accepted) and event.sample != sample:
            if regular or abs(event.sample - sample) > 1:
                report.differences.append(f"marker {number}: live places it at sample {event.sample}, offline {sample}")
            report.n_apart += 1
            sample = event.sample
        wanted.setdefault(stretch, {})[number] = sample
    for stretch, samples in wanted.items():
        one = found[stretch]
        chain = case.chain()
        part = Reference(
            case.signal, chain.plan.input.channels, recorded.info.sfreq, data[:, one.start : one.stop], case.folder
        )
        verdicts = part.verdicts(list(samples.values()))
        for number, sample in samples.items():
            verdict = verdicts[sample]
            if verdict.why == BEFORE and (stretch > 0 or one.nan_before):
                verdict = Verdict(epoch=None, why=NAN if one.nan_before else BREAK)
            elif verdict.why == BREAK and one.nan_behind:
                verdict = Verdict(epoch=None, why=NAN)
            expected[number] = verdict
    _compare(live, expected, float(np.nanmax(np.abs(data), initial=0.0)), report)


def _in_si(case: Case) -> F64:
    """The channels of the chain in V, T, T/m, (n_channels, n)."""
    info, n = case.recorded.info, len(case.recorded.stamps)
    rows = [[channel.name for channel in info.channels].index(name) for name in case.names]
    unit = case.settings.unit
    sizes = [given_unit(unit) if unit is not None else unit_size(info.units[row]) or 1.0 for row in rows]
    data = np.array(case.recorded.read(0, n), np.float64)[rows] if n else np.empty((len(rows), 0))
    scaled: F64 = data * np.array(sizes)[:, None]
    return scaled


def _once(recorded: Recorded, data: F64) -> tuple[Recorded, F64]:
    """Without samples that came within a second before, with the same stamp and the same values."""
    _, group, counts = np.unique(recorded.stamps, return_inverse=True, return_counts=True)
    kept = np.ones(len(group), bool)
    for number in np.flatnonzero(counts > 1):
        places = np.flatnonzero(group == number)
        for k, later in enumerate(places):
            earlier = [one for one in places[:k] if kept[one] and kept[one:later].sum() <= recorded.info.sfreq]
            kept[later] = not any((data[:, one] == data[:, later]).all() for one in earlier)
    return (recorded, data) if kept.all() else (replace(recorded, stamps=recorded.stamps[kept]), data[:, kept])


def _times(recorded: Recorded, bounds: Sequence[tuple[int, int]]) -> tuple[F64, bool]:
    """The samples' times: the stamps, or of stamps that jitter, the line through each stretch; and which of the two."""
    period = 1 / recorded.info.sfreq
    times, regular = recorded.stamps.copy(), True
    for start, stop in bounds:
        own = recorded.stamps[start:stop]
        if stop - start > 2 and np.abs(np.diff(own) - period).max() > _REGULAR * period:
            regular = False
            number = np.arange(stop - start)
            times[start:stop] = np.polyval(np.polyfit(number, own - own[0], 1), number) + own[0]
    return times, regular


def _compare(
    live: Mapping[int, Accepted | Refused], expected: Mapping[int, Verdict], largest: float, report: Report
) -> None:
    kinds: Counter[str] = Counter()
    for number, verdict in expected.items():
        event = live.get(number)
        if isinstance(event, Accepted):
            report.n_accepted += 1
        elif isinstance(event, Refused):
            kinds[kind_of(event)] += 1
        if isinstance(event, Accepted) and verdict.epoch is not None:
            if event.data.shape != verdict.epoch.shape:
                report.differences.append(
                    f"marker {number}: live gives {event.data.shape}, offline {verdict.epoch.shape}"
                )
                continue
            scale = max(largest, float(np.abs(verdict.epoch).max(initial=0.0)))
            error = float(np.abs(event.data - verdict.epoch).max(initial=0.0))
            report.largest_error = max(report.largest_error, error / scale if error else 0.0)
            report.n_identical += bool(np.array_equal(event.data, verdict.epoch))
        elif isinstance(event, Refused) and verdict.epoch is None:
            named = not verdict.channels or any(name in event.reason for name in verdict.channels)
            if kind_of(event) != verdict.why or not named:
                why = f"{verdict.why} {' '.join(verdict.channels[:3])}".strip()
                report.differences.append(f"marker {number}: live says {event.reason!r}, offline {why!r}")
        else:
            there = "an epoch" if verdict.epoch is not None else f"none ({verdict.why})"
            report.differences.append(f"marker {number}: live gives {_short(event)}, offline {there}")
    report.refused = dict(kinds)


def kind_of(event: Refused) -> str:
    """The reference's word for a reason of the live path."""
    reason = event.reason
    if event.state == REJECTED:
        if "break in the signal" in reason:
            return NAN
        return NO_SPREAD if "does not vary" in reason else PEAK if reason.startswith("peak to peak") else reason
    if "filters settle" in reason:
        return WARM_UP
    if "before the signal's first sample" in reason:
        return BEFORE
    return BREAK if "break in the signal" in reason or reason.startswith("the session ended") else reason
