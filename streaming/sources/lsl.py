"""An amplifier on the Lab Streaming Layer: its signal, and markers of another stream or of one of its channels."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ...runtime.errors import InputError, MindDiffuserError, shown
from ..clock import now as local_now
from ..lsl.address import Address, read_address
from ..lsl.describe import labels, signal_info
from ..lsl.follow import Follower
from ..lsl.found import STRING, Found, find, weakness
from ..lsl.inlet import QUEUE_S, Rows, Stamps
from ..lsl.markers import StimulusChannel, number, number_rows, text_rows
from ..lsl.watch import Watch
from ..records import MARKERS, SIGNAL, ClockOffset, Item, Marker, Notice, Samples, SignalInfo
from .base import Wanted

GATHER, REST = 0.002, 0.02
"""Seconds for which samples are gathered: one by one, a thousand a second would keep a tenth of a core awake. The
longer time where somebody says when they are needed and they are not yet; when they are, they are given one by one."""
# So long after they were needed samples are given one by one; then those are late, or never come.
_HURRY = 0.02
# A wait for the signal is cut into such pieces, in seconds, so that markers and clocks are looked at in between.
_SLICE = 0.02
# Pulls of one poll, a quarter of a second each: a backlog comes in pieces, and the clock is looked at in between.
_MOST_PULLS = 40
_MOST_MARKER_PULLS = 128


def open_lsl(text: str, wanted: Wanted) -> LslSource:
    """The source that "lsl:" and this text name, not yet looked for.

    Raises
    ------
    InputError
        The text cannot be read, or the modality is none that can be live.
    """
    if wanted.modality not in ("eeg", "meg"):
        raise InputError(f"the modality is {wanted.modality!r}: only eeg and meg can be live")
    return LslSource(read_address(text), wanted)


class LslSource:
    """The source; see `Source`.

    Parameters
    ----------
    address
        Which streams.
    wanted
        What the session asks for.
    now
        The local clock.
    gather
        Seconds for which samples are gathered, see `GATHER`; 0 gives each as soon as it is there.
    """

    def __init__(
        self, address: Address, wanted: Wanted, *, now: Callable[[], float] = local_now, gather: float = GATHER
    ) -> None:
        self._address, self._wanted, self._now, self._gather = address, wanted, now, gather
        self._signal: Follower | None = None
        self._markers: Follower | None = None
        self._waiting: list[Item] = []
        self._ordinal = 0
        self._look_due = self._markers_due = 0.0
        self._overrun = {SIGNAL: 0, MARKERS: 0}
        self._last_stamp = math.nan
        self._offset: float | None = None
        self._expects = False
        self._due: float | None = None

    def expect(self, due: float | None) -> None:
        """See :class:`.base.Hurried`."""
        self._expects, self._due = True, due

    def open(self) -> SignalInfo:
        """See `Source`."""
        found, markers = find(self._address, self._wanted.modality, self._wanted.timeout, self._wanted.stopped)
        try:
            self._signal = Follower(SIGNAL, found, self._now)
            self._begin_signal(self._signal)
            self._check_stimulus(found)
            if markers is not None:
                self._markers = Follower(MARKERS, markers, self._now)
                self._begin_markers(self._markers)
        except MindDiffuserError:
            self.close()
            raise
        for stream, one in ((SIGNAL, found), (MARKERS, markers)):
            if one is not None and (text := weakness(one)):
                self._say("warning", stream, text)
        return self._info

    def poll(self, timeout: float) -> Sequence[Item]:
        """See `Source`."""
        if self._signal is None:
            raise InputError("the source is not open: call open() first")
        end = time.monotonic() + timeout
        while True:
            left = max(0.0, end - time.monotonic())
            if (at := self._now()) >= self._look_due:
                self._look_due = at + _SLICE
                for follower in (self._signal, self._markers):
                    if follower is not None:
                        self._look_after(follower)
            self._pull_signal(self._signal, min(left, _SLICE))
            if self._markers is not None:
                self._pull_markers(self._markers)
            if self._waiting or left <= 0:
                items, self._waiting = self._waiting, []
                return items

    def close(self) -> None:
        """See `Source`."""
        for follower in (self._signal, self._markers):
            if follower is not None:
                follower.close()
        self._signal = self._markers = None

    def _say(self, kind: str, stream: str, text: str, info: SignalInfo | None = None, *, n_lost: int = 0) -> None:
        at = self._now()
        self._waiting.append(Notice(kind=kind, stream=stream, at=at, text=text, info=info, n_lost=n_lost))

    def _begin_signal(self, follower: Follower) -> None:
        """Read what the signal's stream, just connected, says of itself."""
        found = follower.found
        self._info = signal_info(found, follower.connected().full, self._wanted.modality)
        self._watch = Watch(found.name, self._wanted.silence, self._wanted.stale, self._now())
        names = [channel.name for channel in self._info.channels]
        stim = self._address.stim
        self._stimulus = StimulusChannel(names.index(stim), self._address.mask) if stim in names else None
        self._offset, self._overrun[SIGNAL], self._last_stamp = None, 0, math.nan

    def _check_stimulus(self, found: Found) -> None:
        if self._address.stim and self._stimulus is None:
            names = ", ".join(channel.name for channel in self._info.channels)
            raise InputError(
                f"the stream {shown(found.name)} has no channel {shown(self._address.stim)}: give stim= one of {names}"
            )

    def _begin_markers(self, follower: Follower) -> None:
        self._labels = labels(follower.connected().full, follower.found.n_channels)
        self._overrun[MARKERS] = 0

    def _look_after(self, follower: Follower) -> None:
        """What happened beside the samples: clocks, and a stream that was lost and is back."""
        again, notices = follower.found_again()
        self._waiting += notices
        if again:
            self._renew(follower)
        for said in follower.clock():
            self._waiting.append(said)
            if isinstance(said, ClockOffset) and said.stream == SIGNAL:
                self._offset = said.offset
                if self._stimulus is not None:  # its markers have the signal's own stamps
                    self._waiting.append(replace(said, stream=MARKERS))

    def _renew(self, follower: Follower) -> None:
        name = shown(follower.found.name)
        if follower.stream == MARKERS:
            self._begin_markers(follower)
            self._say("recovered", MARKERS, f"the marker stream {name} is back")
            return
        before = self._info
        self._begin_signal(follower)
        changes = _changes(before, self._info)
        if self._address.stim and self._stimulus is None:
            changes.append(f"no channel {shown(self._address.stim)}, so no markers")
        if changes:
            self._say("changed", SIGNAL, f"{name} is back with {', '.join(changes)}", self._info)
        else:
            self._say("recovered", SIGNAL, f"{name} is back, as another process", self._info)
        if self._stimulus is not None:
            self._say("changed", MARKERS, f"the markers of {name} are on the clock of its new process")

    def _pull_signal(self, follower: Follower, timeout: float) -> None:
        if follower.connection is None:
            time.sleep(min(timeout, _SLICE))
            return
        gather, most = self._gathering()
        for n_pulled in range(1, _MOST_PULLS + 1):
            block, notices = follower.pull(timeout, gather=gather, most=most)
            self._waiting += notices
            if block is None:
                break
            whole = len(block[0]) == follower.connected().inlet.n_at_once
            # Of a backlog only the end says how late the source is.
            self._take_samples(follower, *block, newest=not whole or n_pulled == _MOST_PULLS)
            if not whole:
                return
            timeout = 0.0
        else:  # more is waiting
            return
        if follower.connection is not None:
            self._waiting += self._watch.nothing(self._now())
            if self._watch.silent:
                follower.suspect()

    def _gathering(self) -> tuple[float, float]:
        """For how long samples are gathered since the last pull, and at most from now."""
        if not self._expects or not self._gather:
            return self._gather, math.inf
        if self._due is None:
            return REST, math.inf
        left = self._due - self._now()
        if left < -_HURRY:
            return self._gather, math.inf
        return REST, max(0.0, left)

    def _take_samples(self, follower: Follower, stamps: Stamps, rows: Rows, *, newest: bool) -> None:
        at = self._now()
        self._count_lost(follower, stamps)
        data = rows.T.astype(np.float64, order="C")
        self._waiting.append(Samples(stamps=stamps, data=data, arrived=at))
        known = newest and self._offset is not None
        self._waiting += self._watch.came(at, float(stamps[-1]) + (self._offset or 0.0) if known else None)
        follower.trust()
        self._last_stamp = float(stamps[-1])
        if self._stimulus is not None:
            for sample, code in self._stimulus.codes(data[self._stimulus.row]):
                self._take_marker(float(stamps[sample]), at, number(code))

    def _count_lost(self, follower: Follower, stamps: Stamps) -> None:
        """Say how many samples the queue has lost; it drops the oldest, so that they are missing before these."""
        overrun = follower.connected().inlet.overrun
        if overrun == self._overrun[SIGNAL]:
            return
        self._overrun[SIGNAL] = overrun
        n_lost = (float(stamps[0]) - self._last_stamp) * self._info.sfreq - 1
        if n_lost >= 0.5:
            name = shown(self._info.name)
            text = f"{n_lost:.0f} samples of {name} were lost: not read within {QUEUE_S} s"
            self._say("dropped", SIGNAL, text, n_lost=round(n_lost))

    def _pull_markers(self, follower: Follower) -> None:
        at = self._now()
        if follower.connection is None or (follower.connection.inlet.n_waiting() == 0 and at < self._markers_due):
            return
        self._markers_due = at + _SLICE
        for _ in range(_MOST_MARKER_PULLS):
            block, notices = follower.pull(0.0)
            self._waiting += notices
            if block is None:
                return
            stamps, rows = block
            at = self._now()
            overrun = 0 if follower.connection is None else follower.connection.inlet.overrun
            if overrun != self._overrun[MARKERS]:
                self._overrun[MARKERS] = overrun
                self._say(
                    "dropped", MARKERS, f"markers of {shown(follower.found.name)} were lost: their queue was full"
                )
            texts = follower.found.format == STRING
            for stamp, raws in zip(stamps, text_rows(rows) if texts else number_rows(rows, self._labels), strict=True):
                for raw in raws:
                    self._take_marker(float(stamp), at, raw)

    def _take_marker(self, stamp: float, arrived: float, raw: bytes) -> None:
        self._waiting.append(Marker(ordinal=self._ordinal, stamp=stamp, arrived=arrived, raw=raw))
        self._ordinal += 1


def _changes(before: SignalInfo, after: SignalInfo) -> list[str]:
    """What differs, in words."""
    changes = []
    if before.sfreq != after.sfreq:
        changes.append(f"{after.sfreq:g} Hz instead of {before.sfreq:g} Hz")
    names, were = ([channel.name for channel in one.channels] for one in (after, before))
    if names != were:
        same = sorted(names) == sorted(were)
        changes.append("its channels in another order" if same else f"{len(names)} channels, other than before")
    elif before.channels != after.channels:
        changes.append("channels of other types or places")
    if before.units != after.units and names == were:
        changes.append("other units")
    return changes
