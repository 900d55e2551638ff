"""``replay:FILE``: a recording as if it came now. XDF, or what MNE reads; of our own sessions, exactly as it came.

``replay:session.xdf,speed=max`` gives it as fast as it is asked for; ``speed=10`` ten times as fast as it was recorded;
without it, in real time. ``stream=NAME`` and ``markers=NAME`` choose an XDF file's streams, ``trigger=NAME`` the
stimulus channel of other files, ``chunk=SECONDS`` how much of the signal comes at a time.
"""

from __future__ import annotations

import heapq
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...runtime.errors import InputError, shown
from ..clock import now as local_now
from ..files import open_file
from ..files.recorded import Choice, Recorded
from ..files.xdf_file import is_xdf
from ..recording.items import is_ours, read_info, read_steps
from ..recording.names import SIGNAL_FILE
from ..records import MARKERS, SIGNAL, ClockOffset, Item, Marker, Notice, Samples, SignalInfo
from .base import Wanted

_CHUNK = 0.01
# Seconds by which a step may come early: a sleep may end a rounding error before its time.
_EARLY = 1e-6
_OPTIONS = ("speed", "stream", "markers", "trigger", "chunk")


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What comes together, at the local time `now` of the recording."""

    now: float
    items: Sequence[Item]


class Replay:
    """A :class:`.base.Source` of a recording.

    Parameters
    ----------
    info
        Of the signal.
    steps
        In the order of their times.
    speed
        1 for real time; None for as fast as it is asked for, at the recording's own times.
    clock, sleep
        The local clock, and what waits.
    """

    def __init__(
        self,
        info: SignalInfo,
        steps: Iterable[Step],
        *,
        speed: float | None,
        clock: Callable[[], float] = local_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._info, self._speed, self._clock, self._sleep = info, speed, clock, sleep
        self._steps = iter(steps)
        self._next: Step | None = None
        self._first = self._start = self._last = 0.0
        self._open = False

    @property
    def now(self) -> float:
        """The local time by the recording's pace: with a `speed` of 1, the clock's; of None, of the last step."""
        if self._speed is None:
            return self._last
        return self._start + (self._clock() - self._start) * self._speed

    def open(self) -> SignalInfo:
        """Start it."""
        self._next = next(self._steps, None)
        self._open = True
        if self._next is not None:
            self._first = self._last = self._next.now
        self._start = self._first if self._speed is None else self._clock()
        return self._info

    def poll(self, timeout: float) -> Sequence[Item]:
        """The next step; or all that are due, and of none after `timeout` seconds nothing."""
        if not self._open:
            return []
        if self._next is None:
            self._open = False
            return [Notice(kind="ended", stream=SIGNAL, at=self.now, text=f"{shown(self._info.name)} is over")]
        if self._speed is None:
            return self._take(0.0)
        shift = self._start - self._first
        wait = (self._next.now + shift - self.now) / self._speed
        if wait > 0:
            self._sleep(min(wait, timeout))
        items: list[Item] = []
        while self._next is not None and self._next.now + shift <= self.now + _EARLY:
            items += self._take(shift)
        return items

    def close(self) -> None:
        """Let go of the file."""
        self._open, self._next = False, None

    def _take(self, shift: float) -> list[Item]:
        step = self._next
        if step is None:
            return []
        self._last = step.now + shift
        self._next = next(self._steps, None)
        return [_shifted(item, shift) for item in step.items] if shift else list(step.items)


def _shifted(item: Item, shift: float) -> Item:
    """As it would have come `shift` seconds later: the stamps are the sender's and stay."""
    if isinstance(item, Samples | Marker):
        return replace(item, arrived=item.arrived + shift)
    if isinstance(item, ClockOffset):
        return replace(item, at=item.at + shift, offset=item.offset + shift)
    return replace(item, at=item.at + shift)


def steps_of(recorded: Recorded, chunk: float = _CHUNK) -> Iterator[Step]:
    """The schedule of a recording: everything comes at its own local time, a chunk at that of its last sample.

    Parameters
    ----------
    recorded
        The recording.
    chunk
        Seconds of signal that come together; at least one sample does.
    """
    apart = [list(_offset_steps(recorded)), list(_marker_steps(recorded))]
    ordinal = 0
    for step in heapq.merge(*apart, _sample_steps(recorded, chunk), key=lambda step: step.now):
        items: list[Item] = []
        for item in step.items:
            if isinstance(item, Marker):
                item = replace(item, ordinal=ordinal)
                ordinal += 1
            items.append(item)
        yield Step(now=step.now, items=items)


def _offset_steps(recorded: Recorded) -> Iterator[Step]:
    begin = _begin(recorded)
    offsets = sorted(recorded.offsets, key=lambda item: item.at)
    first = {stream: next((o for o in offsets if o.stream == stream), None) for stream in {o.stream for o in offsets}}
    for item in offsets:
        # The first one of a clock is known from the start, as of a source that is waited for.
        yield Step(now=min(item.at, begin) if item is first[item.stream] else max(item.at, begin), items=[item])


def _marker_steps(recorded: Recorded) -> Iterator[Step]:
    begin, local = _begin(recorded), _Locally(recorded, MARKERS)
    found = []
    for stamp, raw in recorded.markers:
        arrived = max(begin, local(stamp))
        found.append(Marker(ordinal=0, stamp=stamp, arrived=arrived, raw=raw))
    for marker in sorted(found, key=lambda marker: marker.arrived):
        yield Step(now=marker.arrived, items=[marker])


def _sample_steps(recorded: Recorded, chunk: float) -> Iterator[Step]:
    size = max(1, round(chunk * recorded.info.sfreq))
    stamps, latest, local = recorded.stamps, -math.inf, _Locally(recorded, SIGNAL)
    edges = sorted({*range(0, len(stamps), size), *(sample for sample, _ in recorded.joints), len(stamps)})
    joints = dict(recorded.joints)
    for start, stop in zip(edges, edges[1:], strict=False):
        latest = max(latest, local(float(stamps[stop - 1])))
        items: list[Item] = []
        if start in joints:
            items.append(Notice(kind="dropped", stream=SIGNAL, at=latest, text=joints[start]))
        items.append(Samples(stamps=stamps[start:stop], data=recorded.read(start, stop), arrived=latest))
        yield Step(now=latest, items=items)


def _begin(recorded: Recorded) -> float:
    return _Locally(recorded, SIGNAL)(float(recorded.stamps[0])) if len(recorded.stamps) else 0.0


class _Locally:
    """Local times of one clock's stamps, by the last offset that was measured before each, or else the first."""

    def __init__(self, recorded: Recorded, stream: str) -> None:
        found = sorted((item for item in recorded.offsets if item.stream == stream), key=lambda item: item.at)
        self._offsets = [item.offset for item in found]
        self._from = [item.at - item.offset for item in found]

    def __call__(self, stamp: float) -> float:
        return stamp + self._offsets[max(0, bisect_right(self._from, stamp) - 1)]


def open_replay(text: str, wanted: Wanted) -> Replay:
    """Open what stands behind "replay:".

    Raises
    ------
    InputError
        An option is unknown or wrong, or no stream fits.
    FileError
        The file cannot be read.
    """
    name, options = _parsed(text)
    chunk = _number(options.get("chunk", str(_CHUNK)), "chunk", "seconds of signal")
    pace = options.get("speed", "1")
    speed = None if pace == "max" else _number(pace, "speed", "a factor, or max")
    path = _file_of(Path(name))
    as_it_came = not options.keys() & {"stream", "markers", "trigger", "chunk"}
    if as_it_came and is_xdf(path) and path.is_file() and is_ours(path):
        steps = (Step(now=step.now, items=step.items) for step in read_steps(path))
        return Replay(read_info(path), steps, speed=speed)
    choice = Choice(
        modality=wanted.modality,
        stream=options.get("stream"),
        markers=options.get("markers"),
        trigger=options.get("trigger"),
        stream_option="stream=NAME",
        markers_option="markers=NAME",
    )
    recorded = open_file(path, choice)
    return Replay(recorded.info, _with_notes(recorded, chunk), speed=speed)


def _with_notes(recorded: Recorded, chunk: float) -> Iterator[Step]:
    """The schedule, and at its start what the file does not say."""
    steps = steps_of(recorded, chunk)
    first = next(steps, None)
    if first is not None:
        said = [Notice(kind="warning", stream=SIGNAL, at=first.now, text=note) for note in recorded.notes]
        yield Step(now=first.now, items=[*said, *first.items])
        yield from steps


def _file_of(path: Path) -> Path:
    """The XDF file of a session's folder; any other recording itself, which may be a folder too."""
    return path / SIGNAL_FILE if (path / SIGNAL_FILE).is_file() else path


def _parsed(text: str) -> tuple[str, dict[str, str]]:
    """The file's name, which may have commas, and the options behind it."""
    parts, options = text.split(","), dict[str, str]()
    while len(parts) > 1 and parts[-1].partition("=")[0] in _OPTIONS and "=" in parts[-1]:
        key, _, value = parts.pop().partition("=")
        options[key] = value
    if not text:
        raise InputError(f"the source is replay: without a file: give replay:FILE, and {', '.join(_OPTIONS)} behind it")
    return ",".join(parts), options


def _number(text: str, name: str, wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} of the replay is {shown(text)}: give {wanted}, above 0")
    return value
