"""Which faults happen when: drawn from a seed, without an end, each kind once before any comes again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.random import Generator

from ...runtime.errors import InputError
from .faults import FAULTS, SESSION_FAULTS, SOURCE_FAULTS

# Beside a seed, for the faults of the session: drawn by themselves, they leave those of the source as they are.
_OF_SESSION = 1


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


def drawn(
    seed: int | Sequence[int], kinds: Sequence[str] = tuple(SOURCE_FAULTS), timing: Timing | None = None
) -> Iterator[Fault]:
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
    seeds = (seed,) if isinstance(seed, int) else tuple(seed)
    return _drawn(seeds, list(dict.fromkeys(kinds)), timing or Timing())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The faults of one recording: of its source, and beside them, at times of their own, of the session."""

    source: tuple[Fault, ...] = ()
    session: tuple[Fault, ...] = ()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All, by their beginnings."""
        return tuple(sorted((*self.source, *self.session), key=lambda fault: fault.start))


def plan(seed: int, seconds: float, kinds: Sequence[str] = tuple(FAULTS), timing: Timing | None = None) -> Plan:
    """The faults of a seed that begin within so many seconds.

    Those of the source are the very ones of ``--source chaos:SEED:…``, where all kinds are drawn.
    """

    def within(seeds: int | Sequence[int], known: Mapping[str, object]) -> tuple[Fault, ...]:
        wanted = [kind for kind in kinds if kind in known]
        faults = drawn(seeds, wanted, timing) if wanted else iter(())
        return tuple(takewhile(lambda fault: fault.start < seconds, faults))

    session, lasting = [], set[str]()
    for fault in within((seed, _OF_SESSION), SESSION_FAULTS):
        if fault.kind not in lasting:  # what stays until the end happens once
            session.append(fault)
        if math.isinf(fault.stop):
            lasting.add(fault.kind)
    return Plan(source=within(seed, SOURCE_FAULTS), session=tuple(session))


def _drawn(seeds: tuple[int, ...], kinds: list[str], timing: Timing) -> Iterator[Fault]:
    rng = np.random.default_rng(seeds)
    at, number = timing.first, 0
    while True:
        for place in rng.permutation(len(kinds)):
            kind = kinds[place]
            shortest, longest = FAULTS[kind].lasts
            lasts = shortest if math.isinf(longest) else float(rng.uniform(shortest, longest))
            yield Fault(kind=kind, start=at, stop=at + lasts, seed=(*seeds, number))
            at += (0.0 if math.isinf(lasts) else lasts) + float(rng.uniform(*timing.calm))
            number += 1
