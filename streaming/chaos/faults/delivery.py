"""Faults of the way: everything comes, but late and together, or the stream is cut and comes back changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ...records import SIGNAL, Notice, Samples, SignalInfo
from ..piece import Piece
from .base import Effect, Start


class _Held:
    """Holds everything for a time, again and again, then gives it at once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._held: list[Piece] = []
        self._since: float | None = None

    def push(self, piece: Piece) -> list[Piece]:
        at = piece.arrived
        self._held.append(piece)
        if at is None:
            return []
        if self._since is None:
            self._since = at
        return self.end(at) if at - self._since >= self._seconds else []

    def end(self, at: float) -> list[Piece]:
        held, self._held, self._since = self._held, [], None
        return [piece.arriving(at) for piece in held]


class _Restart:
    """The source is gone for a time and comes back with another description; at the end it is as it was."""

    def __init__(
        self, at: float, away: int, before: SignalInfo, after: SignalInfo, change: Callable[[Piece, Samples], Piece]
    ) -> None:
        self._away, self._before, self._after, self._change = away, before, after, change
        self._first: list[Piece] = [_notice("lost", at, "the source ended")]

    def push(self, piece: Piece) -> list[Piece]:
        given, self._first = self._first, []
        samples = piece.samples
        if samples is None:
            return [*given, piece]
        missing = min(self._away, len(samples.stamps))
        if missing:
            self._away -= missing
            if self._away == 0:
                given += self._back(samples.arrived, self._after)
            piece = piece.part(slice(missing, None))
        samples = piece.samples
        assert samples is not None
        return [*given, self._change(piece, samples)] if len(samples.stamps) else given

    def end(self, at: float) -> list[Piece]:
        return [_notice("lost", at, "the source ended"), *self._back(at, self._before)]

    def _back(self, at: float, info: SignalInfo) -> list[Piece]:
        back = [_notice("recovered", at, "the source is back")]
        if self._after != self._before:
            back.append(_notice("changed", at, "the source is back with another description", info))
        return back


def _notice(kind: str, at: float, text: str, info: SignalInfo | None = None) -> Piece:
    return Piece(item=Notice(kind=kind, stream=SIGNAL, at=at, text=text, info=info))


def outage(rng: Generator, start: Start) -> Effect:
    """Nothing arrives; then everything does, at once."""
    return _Held(float("inf"))


def bursts(rng: Generator, start: Start) -> Effect:
    """Everything arrives in bursts of 0.1 to 0.5 s."""
    return _Held(float(rng.uniform(0.1, 0.5)))


def _restart(rng: Generator, start: Start, after: SignalInfo, change: Callable[[Piece, Samples], Piece]) -> Effect:
    away = max(1, round(float(rng.uniform(0.5, 2.0)) * start.info.sfreq))
    return _Restart(start.at, away, start.info, after, change)


def restart(rng: Generator, start: Start) -> Effect:
    """The source ends and starts again as it was."""
    return _restart(rng, start, start.info, lambda piece, samples: piece)


def other_rate(rng: Generator, start: Start) -> Effect:
    """The source comes back with half of its rate."""
    phase = int(rng.integers(2))

    def change(piece: Piece, samples: Samples) -> Piece:
        assert piece.numbers is not None
        return piece.part(piece.numbers % 2 == phase)

    return _restart(rng, start, replace(start.info, sfreq=start.info.sfreq / 2), change)


def other_order(rng: Generator, start: Start) -> Effect:
    """The source comes back with its channels in another order."""
    return _with_rows(rng, start, rng.permutation(len(start.info.channels)))


def fewer_channels(rng: Generator, start: Start) -> Effect:
    """The source comes back without one of its channels."""
    n_channels = len(start.info.channels)
    return _with_rows(rng, start, np.delete(np.arange(n_channels), rng.integers(n_channels)))


def _with_rows(rng: Generator, start: Start, rows: NDArray[np.int64]) -> Effect:
    info = start.info
    channels, units = (tuple(of[row] for row in rows) for of in (info.channels, info.units))

    def change(piece: Piece, samples: Samples) -> Piece:
        return replace(piece, item=replace(samples, data=samples.data[rows]))

    return _restart(rng, start, replace(info, channels=channels, units=units), change)
