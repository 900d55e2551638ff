"""The contract of a fault, and what the contract tests hold its kinds to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from numpy.random import Generator

from ...records import ClockOffset, SignalInfo
from ..parts import Parts
from ..piece import Piece


class Effect(Protocol):
    """One fault at work.

    It gets every piece of its time in their order, samples cut at its borders, and gives what is delivered instead.
    It may hold pieces back, and gives them at the latest at its end. A fault of samples or clocks depends on the
    samples alone, not on how they are cut into pieces.
    """

    def push(self, piece: Piece) -> list[Piece]:
        """What becomes of one piece."""
        ...

    def end(self, at: float) -> list[Piece]:
        """What it still holds, at the local time of its end."""
        ...


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a fault may know when it starts.

    Attributes
    ----------
    at
        The local time.
    info
        The source's description.
    offsets
        The last clock offset that was measured for each stream.
    """

    at: float
    info: SignalInfo
    offsets: Mapping[str, ClockOffset]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of fault of the source.

    Attributes
    ----------
    what
        In words, for the report, to follow "at 12.0 s ".
    lasts
        The shortest and the longest, in seconds of signal; infinite for what stays until the end.
    make
        The effect, from random numbers and its start.
    """

    what: str
    lasts: tuple[float, float]
    make: Callable[[Generator, Start], Effect]


End = Callable[[], None]
"""Ends a fault; called once."""


@dataclass(frozen=True, kw_only=True)
class SessionKind:
    """One kind of fault of a session's own parts.

    Attributes
    ----------
    what, lasts
        See :class:`Kind`.
    begin
        Makes it happen to the parts, with random numbers; gives what ends it.
    """

    what: str
    lasts: tuple[float, float]
    begin: Callable[[Generator, Parts], End]
