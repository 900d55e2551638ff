"""Faults of the sender's clock: it is elsewhere, it drifts, it is set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ...records import MARKERS, SIGNAL, ClockOffset, Marker, Samples
from ..piece import Piece
from .base import Effect, Start

PPM = 50e-6
# Seconds between two measurements of the offset, where the source itself makes none; and until the first, of a clock
# that is measured soon.
_EVERY, _SOON = 2.0, 0.3
_UNCERTAINTY = 2e-4
# Seconds from a computer's own zero to 2026, where stamps are those of the calendar.
_CALENDAR = 1.79e9

Shift = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class _Clock:
    """Stamps of some streams are moved, and the offsets that are measured from then on say so.

    `shift` gives seconds for stamps (n,). Offsets that the source measured are corrected; where it measures none, they
    are made, the first one `wait` seconds after the start.
    """

    def __init__(self, start: Start, shift: Shift, streams: Sequence[str], wait: float) -> None:
        self._shift, self._streams = shift, streams
        none = ClockOffset(stream="", at=start.at, offset=0.0, uncertainty=_UNCERTAINTY)
        self._last = {stream: start.offsets.get(stream, replace(none, stream=stream)) for stream in streams}
        self._measures = not start.offsets
        self._due = start.at + wait

    def push(self, piece: Piece) -> list[Piece]:
        item = piece.item
        if isinstance(item, ClockOffset) and item.stream in self._streams:
            self._last[item.stream] = item
            return [replace(piece, item=self._corrected(item))]
        due = self._measured(piece.arrived) if piece.arrived is not None and piece.arrived >= self._due else []
        if isinstance(item, Samples) and SIGNAL in self._streams:
            item = replace(item, stamps=item.stamps + self._shift(item.stamps))
        elif isinstance(item, Marker) and MARKERS in self._streams:
            item = replace(item, stamp=item.stamp + float(self._shift(np.array([item.stamp]))[0]))
        return [*due, replace(piece, item=item)]

    def end(self, at: float) -> list[Piece]:
        """The clock is as it was, and measured."""
        return [Piece(item=replace(last, at=at)) for last in self._last.values()]

    def _measured(self, at: float) -> list[Piece]:
        self._due = at + _EVERY if self._measures else float("inf")
        return [Piece(item=self._corrected(replace(last, at=at))) for last in self._last.values()]

    def _corrected(self, item: ClockOffset) -> ClockOffset:
        return replace(item, offset=item.offset - float(self._shift(np.array([item.at - item.offset]))[0]))


def offset(rng: Generator, start: Start) -> Effect:
    """The sender's clock jumps by up to 1000 s, and its offset is measured soon."""
    return _Clock(start, _by(float(rng.uniform(-1000, 1000))), (SIGNAL, MARKERS), _SOON)


def step(rng: Generator, start: Start) -> Effect:
    """The sender's clock is set by one second, forward or back; its offset is measured later."""
    return _Clock(start, _by(float(rng.choice([-1.0, 1.0]))), (SIGNAL, MARKERS), _EVERY)


def drift(rng: Generator, start: Start) -> Effect:
    """The sender's clock goes wrong by 50 parts in a million from now on."""
    rate = PPM * float(rng.choice([-1.0, 1.0]))
    first: list[float] = []

    def shift(stamps: NDArray[np.float64]) -> NDArray[np.float64]:
        if not first:
            first.append(float(stamps[0]))
        return rate * (stamps - first[0])

    return _Clock(start, shift, (SIGNAL, MARKERS), _SOON)


def foreign(rng: Generator, start: Start) -> Effect:
    """Markers are stamped by the calendar of another computer; the offset is measured soon."""
    return _Clock(start, _by(_CALENDAR), (MARKERS,), _SOON)


class _Unmeasured:
    """Markers on a clock of which nobody can say the offset."""

    def push(self, piece: Piece) -> list[Piece]:
        marker = piece.marker
        if marker is not None:
            return [replace(piece, item=replace(marker, stamp=marker.stamp + _CALENDAR))]
        return [] if isinstance(piece.item, ClockOffset) and piece.item.stream == MARKERS else [piece]

    def end(self, at: float) -> list[Piece]:
        return []


def unmeasured(rng: Generator, start: Start) -> Effect:
    """Markers are stamped by the calendar of another computer, and nothing tells the offset."""
    return _Unmeasured()


def _by(seconds: float) -> Shift:
    return lambda stamps: np.full(len(stamps), seconds)
