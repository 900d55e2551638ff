"""Growing averages over the repetitions of an event."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

# An event whose name never comes again must not fill the memory: 500 means of 63 channels and 250 samples are 60 MB.
MOST_EVENTS = 500


class Averages:
    """The mean of all epochs of each event so far.

    Parameters
    ----------
    most_events
        How many are kept: beyond that, the one that came longest ago begins anew.
    """

    def __init__(self, most_events: int = MOST_EVENTS) -> None:
        self._sums: OrderedDict[str, tuple[NDArray[np.float64], int]] = OrderedDict()
        self._most = most_events

    def add(self, event: str, epoch: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
        """Take one more epoch (n_channels, n_times) of an event: the mean, of the same shape, and of how many it is."""
        total, n = self._sums.pop(event, (np.zeros(epoch.shape, np.float64), 0))
        total, n = total + epoch, n + 1
        self._sums[event] = total, n
        if len(self._sums) > self._most:
            self._sums.popitem(last=False)
        return (total / n).astype(np.float32), n
