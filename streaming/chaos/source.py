"""A source that suffers faults: what passes through the `Injector`, and any source behind one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...runtime.errors import InputError, shown
from ..clock import now as local_now
from ..records import ClockOffset, Item, Marker, Notice, Samples, SignalInfo
from ..sources import open_source
from ..sources.base import Paced, Source, Wanted
from .faults import SOURCE_FAULTS
from .faults.base import Effect, Start
from .piece import ALTERED, Piece
from .plan import Fault, drawn
from .truth import TrueMarker, Truth

_DIGITS = 18


class Injector:
    """Items of a source in, what is delivered instead out.

    Attributes
    ----------
    happened
        The faults that have begun, in their order.
    """

    def __init__(self, faults: Iterator[Fault], info: SignalInfo, truth: Truth | None = None) -> None:
        self._faults, self._info, self._truth = faults, info, truth
        self._next = next(faults, None)
        self._clocks: list[Effect] = []
        self._effect: Effect | None = None
        self._stop = math.inf
        self._offsets: dict[str, ClockOffset] = {}
        self._n_samples = self._n_markers = 0
        self.happened: list[Fault] = []

    def step(self, items: Sequence[Item]) -> list[Item]:
        """What becomes of the items that came."""
        return [item for given in items for piece in self._step(given) for item in self._delivered(piece)]

    def finish(self, at: float) -> list[Item]:
        """What the fault of the moment still holds, at the end."""
        return [item for piece in self._end(at) for item in self._delivered(piece)]

    def _step(self, item: Item) -> Iterator[Piece]:
        if isinstance(item, Samples):
            yield from self._samples(item)
            return
        if isinstance(item, Notice) and item.kind == "ended":
            yield from self._end(item.at)
        piece = Piece(item=item)
        if isinstance(item, Marker):
            piece = Piece(item=item, numbers=np.array([item.ordinal]), true=np.array([item.stamp]))
        yield from self._through(piece)

    def _samples(self, item: Samples) -> Iterator[Piece]:
        """The samples, cut where a fault begins or ends."""
        numbers = self._n_samples + np.arange(len(item.stamps))
        left = Piece(item=item, numbers=numbers, true=item.stamps)
        while numbers.size:
            if self._effect is not None and self._stop <= numbers[0]:
                yield from self._end(item.arrived)
            while self._effect is None and self._next is not None and self._at(self._next.start) <= numbers[0]:
                self._begin(self._next, item.arrived)
            border = self._stop if self._effect is not None else self._at(self._next.start) if self._next else math.inf
            n_before = int(min(border - numbers[0], len(numbers)))
            self._n_samples += n_before
            yield from self._through(left.part(slice(n_before)))
            left, numbers = left.part(slice(n_before, None)), numbers[n_before:]

    def _at(self, seconds: float) -> float:
        """The number of the sample at this time; a fault has at least one."""
        return math.inf if math.isinf(seconds) else round(seconds * self._info.sfreq)

    def _begin(self, fault: Fault, at: float) -> None:
        kind = SOURCE_FAULTS[fault.kind]
        effect = kind.make(fault.rng, Start(at=at, info=self._info, offsets=self._offsets))
        if math.isinf(fault.stop):
            self._clocks.append(effect)
        else:
            self._effect, self._stop = effect, max(self._at(fault.stop), self._at(fault.start) + 1)
        self.happened.append(fault)
        self._next = next(self._faults, None)

    def _end(self, at: float) -> Iterator[Piece]:
        effect, self._effect, self._stop = self._effect, None, math.inf
        if effect is not None:
            yield from effect.end(at)

    def _through(self, piece: Piece) -> list[Piece]:
        """Through the clocks that are wrong, then through the fault of the moment."""
        pieces = [piece]
        for clock in self._clocks:
            pieces = [given for taken in pieces for given in clock.push(taken)]
        self._offsets |= {one.item.stream: one.item for one in pieces if isinstance(one.item, ClockOffset)}
        return pieces if self._effect is None else [given for one in pieces for given in self._effect.push(one)]

    def _delivered(self, piece: Piece) -> list[Item]:
        item = piece.item
        if isinstance(item, Marker):
            item = replace(item, ordinal=self._n_markers)
            self._n_markers += 1
            if self._truth is not None and piece.true is not None and piece.numbers is not None:
                number = int(piece.numbers[0])
                true = TrueMarker(stamp=float(piece.true[0]), ordinal=None if number == ALTERED else number)
                self._truth.markers[item.ordinal] = true
        elif isinstance(item, Samples):
            if not len(item.stamps):
                return []
            if self._truth is not None and piece.numbers is not None:
                self._truth.numbers.append(piece.numbers)
        return [item]


class FaultySource:
    """Any source, with the faults of a plan."""

    def __init__(self, source: Source, faults: Iterator[Fault], truth: Truth | None = None) -> None:
        self._source, self._faults, self._truth = source, faults, truth
        self._injector: Injector | None = None

    @property
    def happened(self) -> list[Fault]:
        """The faults that have begun."""
        return [] if self._injector is None else self._injector.happened

    @property
    def now(self) -> float:
        """The source's own time, where it has one, or the local clock's."""
        return self._source.now if isinstance(self._source, Paced) else local_now()

    def open(self) -> SignalInfo:
        """As the source's own."""
        info = self._source.open()
        self._injector = Injector(self._faults, info, self._truth)
        return info

    def poll(self, timeout: float) -> Sequence[Item]:
        """What the faults leave of what came."""
        assert self._injector is not None
        return self._injector.step(self._source.poll(timeout))

    def close(self) -> None:
        """As the source's own."""
        self._source.close()


def open_chaos(text: str, wanted: Wanted) -> FaultySource:
    """What ``--source chaos:SEED:SOURCE`` names: any other source, with the faults of a seed.

    Raises
    ------
    InputError
        The seed is no whole number, or the source is refused.
    """
    seed, _, source = text.partition(":")
    if not seed.isdecimal() or len(seed) > _DIGITS:
        raise InputError(
            f"the source is {shown('chaos:' + text)}: give chaos:SEED:SOURCE, such as chaos:7:lsl:name=EEG"
        )
    return FaultySource(open_source(source, wanted), drawn(int(seed)))
