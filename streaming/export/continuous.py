"""A session's signal as other programs have it: samples at a constant rate, gaps filled with zeros and marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import Channel
from ...runtime.errors import InputError, shown
from ...runtime.signal.stamps import stretches
from ...runtime.signal.units import given_unit, unit_size
from ..intake.recent import Recent
from ..recording.items import read_info, read_steps
from ..recording.streams import same_signal
from ..records import MARKERS, SIGNAL, ClockOffset, Item, Marker, Notice, Samples, SignalInfo

F64 = NDArray[np.float64]
# A pause that is longer parts the recording into several: nobody wants hours of zeros.
LONGEST_GAP = 600.0
# How far the measured rate may be from the stated one, as a share and in seconds over the whole signal.
_MOST_OFF, _MOST_OFF_S = 0.01, 1.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """A marker: its place in the part, in samples from the first, and its text."""

    sample: int
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A stretch of a session with one description.

    Attributes
    ----------
    channels, sfreq
        Of the signal; sfreq is nominal.
    data
        (n_channels, n_samples) float64 in V, T or T/m, mapped from a file; 0 in gaps.
    gaps
        First sample and the one behind the last of each gap.
    events
        In the order of their arrival.
    n_outside
        Markers before its first sample or behind its last one, which are in no event.
    start
        Local time of the first sample, in seconds.
    n_repeated
        Samples between its first and its last one that came twice, with the same stamp and the same values: they are
        there once, as the live session counts them once.
    """

    channels: tuple[Channel, ...]
    sfreq: float
    data: F64
    gaps: tuple[tuple[int, int], ...]
    events: tuple[Event, ...]
    n_outside: int
    start: float
    n_repeated: int = 0


@dataclass(kw_only=True)
class _Draft:
    """What becomes a part: samples `first` to `first + n` of those of its description."""

    info: SignalInfo
    first: int
    times: F64 = field(default_factory=lambda: np.empty(0))
    places: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    gaps: list[tuple[int, int]] = field(default_factory=list)


def parts_of(signal: Path, scratch: Path, *, unit: str | None = None) -> list[Part]:
    """Read a session's XDF file; a signal that came back with another description, or after long, is a part of its own.

    Stamps become local times by the clock offsets, on a line within each stretch without a gap. A marker stands at the
    nearest sample.

    Parameters
    ----------
    signal
        The file.
    scratch
        A folder for the samples, which are mapped and not held.
    unit
        Of every channel, where the source declared none or a wrong one.

    Raises
    ------
    FileError
        The file is damaged, or none of ours.
    InputError
        A unit is unknown, there are no samples, or their rate is not the one that the source stated.
    """
    read = _read(signal)
    offsets = read.offsets
    drafts: list[_Draft] = []
    for info, of_info in zip(read.infos, read.stamps, strict=True):
        local = _locally(np.concatenate([np.empty(0), *of_info]), offsets[SIGNAL])
        drafts += _drafts(info, local)
    if not drafts:
        raise InputError(f"{signal} holds no samples: there is nothing to export")
    sizes = [_sizes(draft.info, unit) for draft in drafts]
    data = [
        np.lib.format.open_memmap(
            scratch / f"part{k}.npy", "w+", np.float64, (len(draft.info.channels), int(draft.places[-1]) + 1)
        )
        for k, draft in enumerate(drafts)
    ]
    n_repeated = _fill(signal, read, drafts, data)
    for block, size in zip(data, sizes, strict=True):
        for row in range(len(block)):
            block[row] *= size[row]
    events, n_outside = _placed(read.markers, offsets[MARKERS], drafts)
    return [
        Part(
            channels=draft.info.channels, sfreq=draft.info.sfreq, data=block, gaps=tuple(draft.gaps),
            events=tuple(events[k]), n_outside=n_outside[k], start=float(draft.times[0]), n_repeated=n_repeated[k],
        )
        for k, (draft, block) in enumerate(zip(drafts, data, strict=True))
    ]  # fmt: skip


class _Following:
    """Which description holds, while the items of a session go by."""

    def __init__(self, signal: Path) -> None:
        self.infos = [read_info(signal)]

    def take(self, item: Item) -> None:
        if isinstance(item, Notice) and item.info is not None and not same_signal(item.info, self.infos[-1]):
            self.infos.append(item.info)


@dataclass(kw_only=True)
class _Read:
    """A session but for its values.

    Attributes
    ----------
    infos, stamps
        The descriptions, and the stamps of each in their blocks, without the samples that came before.
    new
        Of the blocks with such samples, by their number in the session: which samples are new.
    markers
        In the order of their arrival.
    offsets
        Of both clocks.
    """

    infos: list[SignalInfo]
    stamps: list[list[F64]] = field(default_factory=lambda: [[]])
    new: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    markers: list[Marker] = field(default_factory=list)
    offsets: dict[str, list[ClockOffset]] = field(default_factory=lambda: {SIGNAL: [], MARKERS: []})


def _read(signal: Path) -> _Read:
    following = _Following(signal)
    read, n_blocks = _Read(infos=following.infos), 0
    recent = _recent(following.infos[0])
    for step in read_steps(signal):
        for item in step.items:
            following.take(item)
            if len(read.stamps) < len(following.infos):
                read.stamps.append([])
                recent = _recent(following.infos[-1])
            if isinstance(item, Samples):
                new = recent.take(item.stamps, item.data)
                if not new.all():
                    read.new[n_blocks] = new
                read.stamps[-1].append(item.stamps[new])
                n_blocks += 1
            elif isinstance(item, Marker):
                read.markers.append(item)
            elif isinstance(item, ClockOffset):
                read.offsets[item.stream].append(item)
    return read


def _recent(info: SignalInfo) -> Recent:
    return Recent(len(info.channels), info.sfreq)


def _locally(stamps: F64, offsets: Sequence[ClockOffset]) -> F64:
    """Stamps on the local clock: offsets between two measurements by a line, before and after them as measured."""
    if not offsets:
        return stamps
    at = np.array([item.at - item.offset for item in offsets])
    order = np.argsort(at, kind="stable")
    return np.asarray(stamps + np.interp(stamps, at[order], np.array([item.offset for item in offsets])[order]))


def _drafts(info: SignalInfo, times: F64) -> list[_Draft]:
    """The parts of one description, with the place of each sample."""
    found = stretches(times, info.sfreq)
    if found.sfreq > 0 and abs(found.sfreq / info.sfreq - 1) > _MOST_OFF:
        # Of a short signal, jitter alone may tell another rate.
        if abs(len(times) / found.sfreq - len(times) / info.sfreq) > _MOST_OFF_S:
            raise InputError(
                f"the source stated {info.sfreq:g} Hz, and {found.sfreq:.6g} samples a second came: too many "
                "were lost, or the rate is wrong; read the samples and their stamps from the session's signal.xdf"
            )
    drafts: list[_Draft] = []
    places: list[list[NDArray[np.int64]]] = []  # of each part, those of its stretches
    last = -1
    for start, stop in found.segments:
        place = 0
        if drafts:
            pause = float(found.times[start] - found.times[start - 1])
            if -1 < pause <= LONGEST_GAP:
                place = last + max(1, round(pause * info.sfreq))
                if place > last + 1:
                    drafts[-1].gaps.append((last + 1, place))
        if place == 0:
            drafts.append(_Draft(info=info, first=start))
            places.append([])
        places[-1].append(place + np.arange(stop - start))
        last = place + stop - start - 1
    for draft, own in zip(drafts, places, strict=True):
        draft.places = np.concatenate(own)
        draft.times = found.times[draft.first : draft.first + len(draft.places)]
    return drafts


def _fill(signal: Path, read: _Read, drafts: Sequence[_Draft], data: Sequence[F64]) -> list[int]:
    """Put every sample in its place; how many of each draft's came twice."""
    following, seen = _Following(signal), [0] * len(read.infos)
    n_blocks, n_repeated = 0, [0] * len(drafts)
    for step in read_steps(signal):
        for item in step.items:
            following.take(item)
            if not isinstance(item, Samples):
                continue
            which = len(following.infos) - 1
            new = read.new.get(n_blocks)
            values = item.data if new is None else item.data[:, new]
            n_blocks += 1
            first, seen[which] = seen[which], seen[which] + values.shape[1]
            for number, (draft, block) in enumerate(zip(drafts, data, strict=True)):
                if draft.info is not read.infos[which]:
                    continue
                end = draft.first + len(draft.places)
                if new is not None and draft.first < seen[which] <= end:
                    n_repeated[number] += len(new) - values.shape[1]
                start, stop = max(first, draft.first), min(seen[which], end)
                if start < stop:
                    part = slice(start - draft.first, stop - draft.first)
                    block[:, draft.places[part]] = values[:, start - first : stop - first]
    return n_repeated


def _placed(
    markers: Sequence[Marker], offsets: Sequence[ClockOffset], drafts: Sequence[_Draft]
) -> tuple[list[list[Event]], list[int]]:
    """The markers of each part, and how many lie outside of it; one that lies in no part belongs to the nearest."""
    events: list[list[Event]] = [[] for _ in drafts]
    n_outside = [0] * len(drafts)
    times = _locally(np.array([marker.stamp for marker in markers]), offsets)
    for marker, time in zip(markers, times.tolist(), strict=True):
        far = [max(draft.times[0] - time, time - draft.times[-1], 0.0) for draft in drafts]
        which = int(np.argmin(far))
        draft = drafts[which]
        before = max(int(np.searchsorted(draft.times, time, side="right")) - 1, 0)
        sample = int(draft.places[before]) + round((time - float(draft.times[before])) * draft.info.sfreq)
        if 0 <= sample <= draft.places[-1]:
            events[which].append(Event(sample=sample, text=marker.text))
        else:
            n_outside[which] += 1
    return events, n_outside


def _sizes(info: SignalInfo, unit: str | None) -> list[float]:
    """The size of each channel's unit."""
    given = None if unit is None else given_unit(unit)
    sizes = []
    for channel, declared in zip(info.channels, info.units, strict=True):
        size = given if given is not None else unit_size(declared) if declared else None
        if size is None and channel.type != "misc":
            raise InputError(
                f"channel {shown(channel.name)} declares the unit {shown(declared)}: say it with --unit, such as "
                "--unit uV"
            )
        sizes.append(1.0 if size is None or channel.type == "misc" else size)
    return sizes
