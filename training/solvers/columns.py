"""Targets as decoders get them: read a few columns at a time, since all of them need not fit in memory."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class Columns(Protocol):
    """Normalised targets, (n_trials, n_targets) by `shape`; it is no array."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def columns(self, start: int, stop: int) -> NDArray[np.float64]:
        """Columns start..stop-1, (n_trials, stop - start) float64.

        Called in several threads or forked processes: read at a position (memmap, pread), never move a file pointer.
        """
        ...
