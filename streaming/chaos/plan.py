"""Which faults happen when: drawn from a seed, without an end, each kind once before any comes again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ...runtime.errors import InputError
from .faults import FAULTS


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault: its kind, its start and end in seconds of the source's signal, and the seed of its random numbers."""

    kind: str
    start: float
    stop: float
    seed: tuple[int, ...]

    @property
    def rng(self) -> Generator:
        """Its random numbers, from their start."""
        return np.random.default_rng(self.seed)

    def __str__(self) -> str:
        lasting = "" if math.isinf(self.stop) else f", for {self.stop - self.start:.1f} s"
        return f"at {self.start:.1f} s {FAULTS[self.kind].what}{lasting} ({self.kind})"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How often, in seconds of signal.

    Attributes
    ----------
    first
        The undisturbed time before the first fault.
    calm
        The shortest and the longest time between a fault's end and the next one's start.
    """

    first: float = 5.0
    calm: tuple[float, float] = (3.0, 8.0)


def drawn(seed: int, kinds: Sequence[str] = tuple(FAULTS), timing: Timing | None = None) -> Iterator[Fault]:
    """The faults of a seed, in their order; only one at a time, but for those of the clock, which stay.

    Raises
    ------
    InputError
        A kind is unknown, or none is given.
    """
    strange = [kind for kind in kinds if kind not in FAULTS]
    if strange or not kinds:
        what = f"the fault {strange[0]!r} is unknown" if strange else "no kind of fault is given"
        raise InputError(f"{what}: choose from {', '.join(FAULTS)}")
    return _drawn(seed, list(dict.fromkeys(kinds)), timing or Timing())


def _drawn(seed: int, kinds: list[str], timing: Timing) -> Iterator[Fault]:
    rng = np.random.default_rng(seed)
    at, number = timing.first, 0
    while True:
        for place in rng.permutation(len(kinds)):
            kind = kinds[place]
            shortest, longest = FAULTS[kind].lasts
            lasts = shortest if math.isinf(longest) else float(rng.uniform(shortest, longest))
            yield Fault(kind=kind, start=at, stop=at + lasts, seed=(seed, number))
            at += (0.0 if math.isinf(lasts) else lasts) + float(rng.uniform(*timing.calm))
            number += 1
