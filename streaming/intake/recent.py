"""The samples of the last second, to recognise one that comes twice: with the same stamp and the same values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...runtime.signal.ring import Ring

# Seconds for which samples are remembered.
_REMEMBERED = 1.0
# Two stamps are apart by one period, but for this share of it, where a source stamps its samples evenly.
_EVEN = 0.1


class Recent:
    """The last samples of all stretches.

    Parameters
    ----------
    n_channels, sfreq
        Of the signal.
    """

    def __init__(self, n_channels: int, sfreq: float) -> None:
        capacity = max(1, round(_REMEMBERED * sfreq))
        self._stamps, self._data = Ring(1, capacity), Ring(n_channels, capacity)

    def add(self, stamps: NDArray[np.float64], data: NDArray[np.float64]) -> None:
        """(n,) and (n_channels, n)."""
        for start in range(0, len(stamps), self._stamps.capacity):
            part = slice(start, start + self._stamps.capacity)
            self._stamps.push(stamps[None, part])
            self._data.push(data[:, part])

    def misses(self, stamp: float, period: float) -> bool:
        """Whether stamps are even, and the place of this one was left free: then it comes out of its order."""
        first = max(0, self._stamps.total - self._stamps.capacity)
        stamps = self._stamps.window(first, self._stamps.total)[0]
        uneven = np.abs(np.diff(stamps) - period) > _EVEN * period
        return bool(2 * uneven.sum() < uneven.size and np.abs(stamps - stamp).min() > period / 2)

    def has(self, stamp: float, values: NDArray[np.float64]) -> bool:
        """Whether a sample of this stamp with these values came."""
        total = self._stamps.total
        first = max(0, total - self._stamps.capacity)
        places = np.flatnonzero(self._stamps.window(first, total)[0] == stamp)
        held = self._data.window(first, total)
        return any(np.array_equal(held[:, place], values, equal_nan=True) for place in places)

    def take(self, stamps: NDArray[np.float64], data: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the next samples (n,), (n_channels, n) come for the first time; those are remembered."""
        held = self._stamps.window(max(0, self._stamps.total - self._stamps.capacity), self._stamps.total)[0]
        _, inverse, counts = np.unique(stamps, return_inverse=True, return_counts=True)
        suspects = np.isin(stamps, held) | (counts[inverse] > 1)
        new = np.ones(len(stamps), np.bool_)
        if not suspects.any():
            self.add(stamps, data)
            return new
        for place, suspect in enumerate(suspects.tolist()):
            new[place] = not (suspect and self.has(float(stamps[place]), data[:, place]))
            if new[place]:
                self.add(stamps[place : place + 1], data[:, place : place + 1])
        return new
