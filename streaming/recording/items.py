"""The items of a recorded session, step by step, the very ones that it was given."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import FileError, shown
from ..records import MARKERS, SIGNAL, ClockOffset, Item, Marker, Notice, Samples, SignalInfo
from . import streams, xdf
from .chunks import Block, Chunk, Damage, Description, chunks, mapped, no_session, samples

F64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What a step of the session was given, at the local time `now`."""

    now: float
    items: list[Item]


def is_ours(path: Path) -> bool:
    """Whether an XDF file is one that md-stream recorded, with the arrival of everything."""
    for chunk in chunks(mapped(path)):
        if isinstance(chunk, Damage) or chunk.tag not in (xdf.FILE_HEADER, xdf.STREAM_HEADER):
            return False
        if chunk.about is not None and chunk.about.role == "arrivals":
            return True
    return False


def read_info(path: Path) -> SignalInfo:
    """The signal as it was described at the start.

    Raises
    ------
    FileError
        The file is missing, or no recording of md-stream.
    """
    for chunk in chunks(mapped(path)):
        if isinstance(chunk, Chunk) and chunk.about is not None and chunk.about.role == "signal":
            return _info(chunk.about, path)
    raise no_session(path, "it describes no signal")


def read_steps(path: Path) -> Iterator[Step]:
    """The steps of a recording, to the bit as they were; of a file that a kill has cut, all that is there.

    What was received and whose arrival a kill has cut off comes in a last step of its own, at the last known time. So
    does a notice; one that is missing altogether, of a source that came back with another description, is made anew
    from that description, so that no samples are taken for those of the source before.

    Raises
    ------
    FileError
        The file is missing, damaged before its end, or no recording of md-stream.
    """
    reading = _Reading(path)
    for chunk in chunks(mapped(path)):
        yield from reading.add(chunk)
    yield from reading.rest()


def read_end(path: Path) -> float | None:
    """The local time at which the recording was closed; None where it was cut.

    Raises
    ------
    FileError
        The file is missing, or no recording of md-stream.
    """
    end = None
    for chunk in chunks(mapped(path)):
        if isinstance(chunk, Damage) or chunk.tag != xdf.SAMPLES or chunk.about is None:
            continue
        if chunk.about.role == "arrivals":
            block = samples(chunk)
            end = float(block.stamps[-1]) if len(block.stamps) and block.values[-1][0] == streams.END else None
    return end


def _info(about: Description, path: Path) -> SignalInfo:
    try:
        content = json.loads(about.info)
    except (ValueError, RecursionError):
        content = about.info
    return streams.info_from_json(content, str(path))


class _Reading:
    """What has been read of the data, and not yet of their arrival."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[int, Description] = {}
        self._blocks: dict[int, deque[Block]] = {}
        self._taken = 0  # of the first block
        self._texts: dict[str, deque[tuple[float, bytes]]] = {"markers": deque(), "notices": deque()}
        self._offsets: dict[int, deque[tuple[float, float]]] = {}
        self._step: Step | None = None
        self._left = 0  # items of the step that are still to come
        self._now, self._ordinal = 0.0, -1
        self._info: SignalInfo | None = None  # as it was said last

    def add(self, chunk: Chunk | Damage) -> Iterator[Step]:
        if isinstance(chunk, Damage):
            if chunk.tail is None:
                raise FileError(f"{self._path} is damaged at byte {chunk.start}: run md-stream repair on it")
            if chunk.tail.tag == xdf.SAMPLES:
                yield from self._add_samples(chunk.tail)
            return
        if chunk.tag == xdf.STREAM_HEADER and chunk.about is not None:
            self._known[chunk.stream] = chunk.about
        elif chunk.tag == xdf.CLOCK_OFFSET:
            at, offset = np.frombuffer(chunk.content, "<f8", 2).tolist()
            self._offsets.setdefault(chunk.stream, deque()).append((at, offset))
        elif chunk.tag == xdf.SAMPLES:
            yield from self._add_samples(chunk)

    def rest(self) -> Iterator[Step]:
        """The step that is not complete, and what nobody knows the arrival of."""
        if not any(about.role == "arrivals" for about in self._known.values()):
            raise no_session(self._path, "it does not say what arrived when, or a repair left that out")
        if self._step is not None:
            yield self._step
        items: list[Item] = []
        signals = sorted(stream for stream, about in self._known.items() if about.role == "signal")
        if signals and self._info is None:
            self._info = _info(self._known[signals[0]], self._path)
        for stream in signals:
            if stream == signals[-1] or self._blocks.get(stream):
                items += self._changed_to(_info(self._known[stream], self._path))
            if self._blocks.get(stream):
                items.append(self._samples(stream, self._n_waiting(stream), self._now))
        items += self._notices_until(lambda _notice: False)
        for stamp, raw in self._texts["markers"]:
            self._ordinal += 1
            items.append(Marker(ordinal=self._ordinal, stamp=stamp, arrived=self._now, raw=raw))
        if items:
            yield Step(now=self._now, items=items)

    def _changed_to(self, info: SignalInfo) -> list[Item]:
        """What was said, or would have been, of a source that is back with this description, unless it is known."""
        if self._info is None or streams.same_signal(info, self._info):
            return []
        items = self._notices_until(lambda notice: notice.info is not None)
        if not streams.same_signal(info, self._info):
            self._info = info
            text = f"{shown(info.name)} is back with another description; the recording was cut before it said how"
            items.append(Notice(kind="changed", stream=SIGNAL, at=self._now, text=text, info=info))
        return items

    def _notices_until(self, last: Callable[[Notice], bool]) -> list[Item]:
        """Notices whose arrival nobody knows, in their order: each has its time itself."""
        items: list[Item] = []
        while self._texts["notices"]:
            at, raw = self._texts["notices"].popleft()
            notice = self._notice(at, json.loads(raw))
            items.append(notice)
            if last(notice):
                break
        return items

    def _add_samples(self, chunk: Chunk) -> Iterator[Step]:
        about, block = self._known[chunk.stream], samples(chunk)
        if about.role == "signal":
            if len(block.stamps):
                self._blocks.setdefault(chunk.stream, deque()).append(block)
        elif about.role in self._texts:
            pairs = zip(block.stamps.tolist(), [texts[0] for texts in block.values], strict=True)
            self._texts[about.role].extend(pairs)
        elif about.role == "arrivals":
            for at, row in zip(block.stamps.tolist(), np.asarray(block.values).tolist(), strict=True):
                yield from self._arrived(at, *row)

    def _arrived(self, at: float, what: float, stream: float, count: float, uncertainty: float) -> Iterator[Step]:
        if what in (streams.STEP, streams.END):
            self._step, self._left, self._now = Step(now=at, items=[]), int(count), at
            if what == streams.END:
                self._step = None
        elif self._step is not None:
            self._step.items.append(self._item(at, int(what), int(stream), int(count), uncertainty))
            self._left -= 1
        if self._step is not None and self._left <= 0:
            yield self._step
            self._step = None

    def _item(self, at: float, what: int, stream: int, count: int, uncertainty: float) -> Item:
        try:
            if what == streams.SAMPLES:
                return self._samples(stream, count, at)
            if what == streams.MARKER:
                stamp, raw = self._texts["markers"].popleft()
                self._ordinal = count
                return Marker(ordinal=count, stamp=stamp, arrived=at, raw=raw)
            if what == streams.NOTICE:
                _, raw = self._texts["notices"].popleft()
                return self._notice(at, json.loads(raw))
            _, offset = self._offsets[stream].popleft()
        except (IndexError, KeyError, TypeError, ValueError):
            raise FileError(
                f"{self._path} tells of something that arrived and is not there: it is damaged, run md-stream repair"
            ) from None
        which = SIGNAL if what == streams.OFFSET_OF_SIGNAL else MARKERS
        return ClockOffset(stream=which, at=at, offset=offset, uncertainty=uncertainty)

    def _notice(self, at: float, about: dict[str, Any]) -> Notice:
        info = streams.info_from_json(about["info"], str(self._path)) if "info" in about else None
        self._info = info or self._info
        n_lost = int(about.get("n_lost", 0))
        return Notice(kind=about["kind"], stream=about["stream"], at=at, text=about["text"], info=info, n_lost=n_lost)

    def _n_waiting(self, stream: int) -> int:
        return sum(len(block.stamps) for block in self._blocks[stream]) - self._taken

    def _samples(self, stream: int, n: int, arrived: float) -> Samples:
        """The next samples of a stream."""
        n_channels = self._known[stream].n_channels
        if n > self._n_waiting(stream):
            raise IndexError
        stamps, data = np.empty(n), np.empty((n_channels, n))
        done = 0
        while done < n:
            block = self._blocks[stream][0]
            part = min(n - done, len(block.stamps) - self._taken)
            stamps[done : done + part] = block.stamps[self._taken : self._taken + part]
            data[:, done : done + part] = block.values[self._taken : self._taken + part].T
            done, self._taken = done + part, self._taken + part
            if self._taken == len(block.stamps):
                self._blocks[stream].popleft()
                self._taken = 0
        return Samples(stamps=stamps, data=data, arrived=arrived)
