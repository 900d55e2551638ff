"""Faults of the samples: some are missing, twice, in the wrong order, no numbers, or unevenly stamped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from ...records import Samples
from ..piece import ALTERED, Piece
from .base import Effect, Start

_SOMETIMES = 0.05
# As a share of the time between two samples: no two of them change places.
_JITTER = 0.3
_NO_NUMBERS = np.array([np.nan, np.inf, -np.inf])


class _OfSamples(ABC):
    """What passes everything but samples."""

    def __init__(self, rng: Generator) -> None:
        self._rng = rng

    def push(self, piece: Piece) -> list[Piece]:
        return [piece] if piece.samples is None else self._change(piece, piece.samples)

    def end(self, at: float) -> list[Piece]:
        return []

    @abstractmethod
    def _change(self, piece: Piece, samples: Samples) -> list[Piece]: ...


class _Pause(_OfSamples):
    def _change(self, piece: Piece, samples: Samples) -> list[Piece]:
        return []


class _Half(_OfSamples):
    def _change(self, piece: Piece, samples: Samples) -> list[Piece]:
        kept = self._rng.random(len(samples.stamps)) < 0.5
        return [piece.part(kept)] if kept.any() else []


class _Twice(_OfSamples):
    def _change(self, piece: Piece, samples: Samples) -> list[Piece]:
        times = 1 + (self._rng.random(len(samples.stamps)) < _SOMETIMES).astype(np.int64)
        return [piece.part(np.repeat(np.arange(len(times)), times))]


class _Resent(_OfSamples):
    """The last samples come once more, together, as a driver does that repeats a packet."""

    def __init__(self, rng: Generator, n_samples: int) -> None:
        super().__init__(rng)
        self._n_samples = n_samples
        self._last: list[Piece] = []

    def _change(self, piece: Piece, samples: Samples) -> list[Piece]:
        given = []
        for place in range(len(samples.stamps)):
            one = piece.part(slice(place, place + 1))
            given.append(one)
            self._last.append(one)
            if len(self._last) == self._n_samples:
                given += [kept.arriving(samples.arrived) for kept in self._last]
                self._last = []
        return given


class _Reordered(_OfSamples):
    """Some samples come a few samples late, behind later ones."""

    def __init__(self, rng: Generator) -> None:
        super().__init__(rng)
        self._held: list[tuple[int, Piece]] = []
        self._passed = 0

    def _change(self, piece: Piece, samples: Samples) -> list[Piece]:
        given: list[Piece] = []
        for place in range(len(samples.stamps)):
            one = piece.part(slice(place, place + 1))
            self._passed += 1
            if self._rng.random() < _SOMETIMES:
                self._held.append((self._passed + int(self._rng.integers(1, 6)), one))
            else:
                given.append(one)
            given += [kept.arriving(samples.arrived) for due, kept in self._held if due <= self._passed]
            self._held = [(due, kept) for due, kept in self._held if due > self._passed]
        return given

    def end(self, at: float) -> list[Piece]:
        held, self._held = self._held, []
        return [piece.arriving(at) for _, piece in held]


class _NotNumbers(_OfSamples):
    def _change(self, piece: Piece, samples: Samples) -> list[Piece]:
        assert piece.numbers is not None
        n_channels, n_samples = samples.data.shape
        drawn = self._rng.random((n_samples, 3))  # the same for a sample, wherever a piece is cut
        hit = np.flatnonzero(drawn[:, 0] < _SOMETIMES)
        data, numbers = samples.data.copy(), piece.numbers.copy()
        data[(drawn[hit, 1] * n_channels).astype(int), hit] = _NO_NUMBERS[(drawn[hit, 2] * 3).astype(int)]
        numbers[hit] = ALTERED
        return [replace(piece, item=replace(samples, data=data), numbers=numbers)]


class _Jitter(_OfSamples):
    def __init__(self, rng: Generator, sfreq: float) -> None:
        super().__init__(rng)
        self._most = _JITTER / sfreq

    def _change(self, piece: Piece, samples: Samples) -> list[Piece]:
        moved = samples.stamps + self._most * self._rng.uniform(-1, 1, len(samples.stamps))
        return [replace(piece, item=replace(samples, stamps=moved))]


def pause(rng: Generator, start: Start) -> Effect:
    """The source sends no samples."""
    return _Pause(rng)


def half(rng: Generator, start: Start) -> Effect:
    """Every sample is missing with a probability of one half."""
    return _Half(rng)


def twice(rng: Generator, start: Start) -> Effect:
    """Some samples come twice in succession."""
    return _Twice(rng)


def resent(rng: Generator, start: Start) -> Effect:
    """The last samples come again, 5 to 50 ms of signal at a time."""
    return _Resent(rng, max(2, round(float(rng.uniform(0.005, 0.05)) * start.info.sfreq)))


def reordered(rng: Generator, start: Start) -> Effect:
    """Some samples come behind later ones."""
    return _Reordered(rng)


def not_numbers(rng: Generator, start: Start) -> Effect:
    """Some samples have a channel that is NaN or infinite."""
    return _NotNumbers(rng)


def jitter(rng: Generator, start: Start) -> Effect:
    """Stamps are off by up to 0.3 samples."""
    return _Jitter(rng, start.info.sfreq)
