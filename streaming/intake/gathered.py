"""Samples that have come and are not worked on yet: until an epoch needs them, or enough are there."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np

from ..records import MARKERS, SIGNAL, Marker, Samples
from .clocks import Clock

# Seconds of samples that gather before they are worked on, where no epoch needs them earlier.
_GATHER = 0.02


class Gathered:
    """The samples, and when they are due.

    Parameters
    ----------
    sfreq
        Of the signal.
    reach
        Seconds from an event to the last sample that its epoch needs.
    clocks
        Of signal and markers.

    Attributes
    ----------
    newest, came
        Stamp of the newest sample, None before the first, and when it came.
    """

    def __init__(self, sfreq: float, reach: float, clocks: Mapping[str, Clock]) -> None:
        self._sfreq, self._reach, self._clocks = sfreq, reach, clocks
        self._samples: list[Samples] = []
        self._n = 0
        self._dues: list[tuple[float, int]] = []
        self.newest: float | None = None
        self.came = -np.inf

    def __len__(self) -> int:
        """How many samples there are."""
        return self._n

    def add(self, samples: Samples) -> None:
        """Put some behind the others."""
        if len(samples.stamps):
            self.newest, self.came = float(samples.stamps[-1]), samples.arrived
            self._samples.append(samples)
            self._n += len(samples.stamps)

    def expect(self, stamp: float, ordinal: int, placed: Container[int]) -> None:
        """The epoch of the marker with this ordinal ends with the sample of this stamp; for `placed` see `is_due`."""
        self.next_due(placed)  # lets go of epochs that came: nobody else asks where each chunk is due by itself
        heapq.heappush(self._dues, (stamp, ordinal))

    def is_due(self, placed: Container[int], first: Marker | None) -> bool:
        """Whether an epoch ends in them, or enough are there.

        Parameters
        ----------
        placed
            The ordinals of the markers whose epochs are waited for.
        first
            The first marker that has no place yet, or None.
        """
        newest = self.newest
        if not self._n or newest is None:
            return False
        if self._n >= _GATHER * self._sfreq:
            return True
        due = self.next_due(placed)
        if due is not None and newest >= due:
            return True
        # Not placed yet: due where its epoch would end by the clocks as they were last measured.
        own, signal = self._clocks[MARKERS].newest, self._clocks[SIGNAL].newest
        if first is None or own is None or signal is None:
            return False
        return newest >= first.stamp + own.offset - signal.offset + self._reach - 1 / self._sfreq

    def next_due(self, placed: Container[int]) -> float | None:
        """Just before the last sample of the next epoch that is waited for, by its stamp; None where none is."""
        while self._dues and self._dues[0][1] not in placed:
            heapq.heappop(self._dues)
        return self._dues[0][0] if self._dues else None

    def take(self) -> Iterator[Samples]:
        """All of them; chunks of as many channels that came one after the other as one."""
        samples, self._samples, self._n = self._samples, [], 0
        for _, group in groupby(samples, key=lambda chunk: len(chunk.data)):
            yield _joined(list(group))


def _joined(chunks: Sequence[Samples]) -> Samples:
    """Chunks as one, which arrived with the last."""
    if len(chunks) == 1:
        return chunks[0]
    return Samples(
        stamps=np.concatenate([chunk.stamps for chunk in chunks]),
        data=np.concatenate([chunk.data for chunk in chunks], axis=1),
        arrived=chunks[-1].arrived,
    )
