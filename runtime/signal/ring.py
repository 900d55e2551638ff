"""The last samples of a signal."""

from __future__ import annotations

import numpy as np

from .stage import Array


class Ring:
    """The last `capacity` samples of `n_channels`; `total` counts all samples since the start."""

    def __init__(self, n_channels: int, capacity: int) -> None:
        self._data = np.zeros((n_channels, 2 * capacity))  # each sample twice: any window is one slice
        self.capacity, self.total = capacity, 0

    def push(self, chunk: Array) -> None:
        """Add (n_channels, n), n at most `capacity`."""
        columns = (self.total + np.arange(chunk.shape[1])) % self.capacity
        self._data[:, columns] = self._data[:, columns + self.capacity] = chunk
        self.total += chunk.shape[1]

    def holds(self, start: int) -> bool:
        """Whether sample `start` has not been overwritten."""
        return start >= self.total - self.capacity

    def window(self, start: int, stop: int) -> Array:
        """The samples `start` to `stop`, (n_channels, stop - start), which have to be held; a view."""
        place = start % self.capacity
        return self._data[:, place : place + stop - start]
