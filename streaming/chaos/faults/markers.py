"""Faults of the markers: floods, empty, giant and garbled ones, twice, late, out of order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from ...records import Marker
from ..piece import ALTERED, Piece
from .base import Effect, Start

FLOOD = b"flood"
_FLOOD_HZ, _N_FLOOD = 10_000, 5_000
_GIANT = 1_000_000
_FAR = 1000.0
# No UTF-8: a lone continuation byte, an overlong form, a surrogate, a zero.
_GARBLED = b"\x80caf\xe9\xc0\xaf\xed\xa0\x80\x00"


class _Invented:
    """Adds markers once, behind the first samples, `step` seconds apart."""

    def __init__(self, raw: bytes, n_markers: int = 1, step: float = 0.0) -> None:
        self._raw, self._n_markers, self._step = raw, n_markers, step

    def push(self, piece: Piece) -> list[Piece]:
        samples, true = piece.samples, piece.true
        if samples is None or true is None:
            return [piece]
        n_markers, self._n_markers = self._n_markers, 0
        # No marker half-way between two samples: either would be right.
        later = self._step * (0.3 + np.arange(n_markers))
        return [
            piece,
            *(
                Piece(
                    item=Marker(ordinal=0, stamp=samples.stamps[-1] + after, arrived=samples.arrived, raw=self._raw),
                    numbers=np.array([ALTERED]),
                    true=true[-1:] + after,
                )
                for after in later
            ),
        ]

    def end(self, at: float) -> list[Piece]:
        return []


def empty(rng: Generator, start: Start) -> Effect:
    """A marker without a byte."""
    return _Invented(b"")


def giant(rng: Generator, start: Start) -> Effect:
    """A marker of one megabyte."""
    return _Invented(b"x" * _GIANT)


def garbled(rng: Generator, start: Start) -> Effect:
    """A marker that is no UTF-8."""
    return _Invented(_GARBLED)


def flood(rng: Generator, start: Start) -> Effect:
    """5000 markers within half a second."""
    return _Invented(FLOOD, _N_FLOOD, 1 / _FLOOD_HZ)


class _Doubled:
    def push(self, piece: Piece) -> list[Piece]:
        return [piece] if piece.marker is None else [piece, piece]

    def end(self, at: float) -> list[Piece]:
        return []


def doubled(rng: Generator, start: Start) -> Effect:
    """Every marker comes twice."""
    return _Doubled()


class _Late:
    """Holds each marker for a time of its own."""

    def __init__(self, rng: Generator, most: float) -> None:
        self._rng, self._most = rng, most
        self._held: list[tuple[float, Piece]] = []

    def push(self, piece: Piece) -> list[Piece]:
        if piece.marker is not None:
            self._held.append((piece.marker.arrived + float(self._rng.uniform(0, self._most)), piece))
            return []
        at = piece.arrived
        if at is None:
            return [piece]
        due = [kept.arriving(at) for when, kept in self._held if when <= at]
        self._held = [(when, kept) for when, kept in self._held if when > at]
        return [piece, *due]

    def end(self, at: float) -> list[Piece]:
        held, self._held = self._held, []
        return [piece.arriving(at) for _, piece in held]


def late(rng: Generator, start: Start) -> Effect:
    """Each marker comes up to 3 s late, and so perhaps behind later ones."""
    return _Late(rng, 3.0)


class _Shuffled:
    """Holds the markers and gives them at the end in a random order."""

    def __init__(self, rng: Generator) -> None:
        self._rng = rng
        self._held: list[Piece] = []

    def push(self, piece: Piece) -> list[Piece]:
        if piece.marker is None:
            return [piece]
        self._held.append(piece)
        return []

    def end(self, at: float) -> list[Piece]:
        held, self._held = self._held, []
        return [held[place].arriving(at) for place in self._rng.permutation(len(held))]


def shuffled(rng: Generator, start: Start) -> Effect:
    """Markers come together, in a random order."""
    return _Shuffled(rng)


class _Misdated:
    """Markers are stamped far in the future, as by a program that adds milliseconds to seconds."""

    def push(self, piece: Piece) -> list[Piece]:
        marker = piece.marker
        if marker is None:
            return [piece]
        assert piece.true is not None
        item = replace(marker, stamp=marker.stamp + _FAR)
        return [replace(piece, item=item, numbers=np.array([ALTERED]), true=piece.true + _FAR)]

    def end(self, at: float) -> list[Piece]:
        return []


def misdated(rng: Generator, start: Start) -> Effect:
    """Markers are stamped 1000 s in the future."""
    return _Misdated()
