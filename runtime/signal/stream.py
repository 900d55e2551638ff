"""The chain as a signal arrives: chunks and events in, epochs out, the same to the bit as from the whole recording."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from .epoching import TOO_EARLY, TOO_LATE, finished
from .ring import Ring
from .screen import checked_samples
from .stage import Plan

# Samples of the input that are worked on at a time, however large a chunk is.
_PIECE = 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What became of one event.

    Attributes
    ----------
    id
        What it was marked with.
    event
        Its sample.
    data
        The epoch, (n_channels, n_times) of the stream's type; None where it was refused.
    reason
        Why it was refused, or None.
    rejected
        Whether a step refused it for its own values; False where its samples are not there.
    in_warm_up
        Whether a sample of it lies where the filters have not settled.
    """

    id: Hashable
    event: int
    data: NDArray[Any] | None
    reason: str | None
    rejected: bool
    in_warm_up: bool


class Stream:
    """One uninterrupted signal on its way through a causal chain; :meth:`.chain.Chain.stream` makes one.

    It starts at its first sample, which counts as 0, with filters that have to settle. After a gap a new one is
    needed. Every event that was marked comes out of :meth:`pop` exactly once.
    """

    def __init__(self, plan: Plan, *, keep: float, dtype: type[Any] = np.float32) -> None:
        self._plan, self._dtype = plan, dtype
        self._pushes = [stage.start() for stage in plan.stages]
        self._ring = Ring(len(plan.window.channels), plan.window.n_times + max(1, round(keep * plan.window.sfreq)))
        self._waiting: list[tuple[int, int, int, int, Hashable]] = []  # a heap: stop, order, start, event, id
        self._outcomes: list[Outcome] = []
        self._n_marked = 0
        self._ended = False
        self.n_samples = 0

    @property
    def n_waiting(self) -> int:
        """How many events wait for samples."""
        return len(self._waiting)

    def push(self, chunk: ArrayLike) -> None:
        """Add the next samples, (n_channels, n) in V or T, n from 0.

        Raises
        ------
        ShapeError, InputError
            It has another number of channels, or NaN; nothing of it was taken then.
        """
        self._check_open()
        samples = checked_samples(chunk, self._plan.input, self.n_samples)
        for first in range(0, samples.shape[1], _PIECE):
            self._push(samples[:, first : first + _PIECE])

    def _push(self, piece: NDArray[np.float64]) -> None:
        self.n_samples += piece.shape[1]
        for push in self._pushes:
            piece = push(piece)
        step = self._ring.capacity - self._plan.window.n_times  # no epoch that waits is overwritten
        for first in range(0, piece.shape[1], step):
            self._ring.push(piece[:, first : first + step])
            self._finish_ready()

    def mark(self, event: int, id: Hashable = None) -> None:
        """Say that an event happened at sample `event` of the input, counted from the stream's first.

        It may lie in the future, or so far back that the samples of its epoch are still held; the signal may have
        ended.
        """
        start, stop = self._plan.span(int(event))
        self._n_marked += 1
        if start < 0:
            self._refuse(id, event, TOO_EARLY)
        elif not self._ring.holds(start):
            late = (self._ring.total - stop) / self._plan.window.sfreq
            self._refuse(id, event, f"the event came {late:.3g} s after its epoch had ended, whose samples are gone")
        elif self._ended and stop > self._ring.total:
            self._refuse(id, event, TOO_LATE)
        else:
            heapq.heappush(self._waiting, (stop, self._n_marked, start, int(event), id))
            self._finish_ready()

    def holds(self, event: int) -> bool:
        """Whether the samples of the epoch of an event are held, or will be; the event is not before them all."""
        return self._ring.holds(self._plan.span(int(event))[0])

    def pop(self) -> list[Outcome]:
        """The outcomes since the last call, in the order in which their epochs ended."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def finish(self) -> list[Outcome]:
        """End the signal: what still waits is refused. The rest of the outcomes."""
        self._ended = True
        while self._waiting:
            *_, event, id = heapq.heappop(self._waiting)
            self._refuse(id, event, TOO_LATE)
        return self.pop()

    def _finish_ready(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._ring.total:
            stop, _, start, event, id = heapq.heappop(self._waiting)
            data, reason = finished(self._ring.window(start, stop), self._plan.steps, self._dtype)
            early = start < self._plan.warm_up
            refused = data is None
            self._outcomes.append(
                Outcome(id=id, event=event, data=data, reason=reason, rejected=refused, in_warm_up=early)
            )

    def _refuse(self, id: Hashable, event: int, reason: str) -> None:
        self._outcomes.append(
            Outcome(id=id, event=int(event), data=None, reason=reason, rejected=False, in_warm_up=False)
        )

    def _check_open(self) -> None:
        if self._ended:
            raise InputError("the stream was ended by finish(): start a new one with chain.stream()")
