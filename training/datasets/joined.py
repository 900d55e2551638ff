"""Trials of several pieces as one array, of which rows are read when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


class Joined:
    """(n, *shape) float32, joined from (n_k, *shape); indexed by an array of rows, which are then copied."""

    def __init__(self, parts: Sequence[F32], shape: Sequence[int]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *map(len, self._parts)])
        self.shape = (int(self._starts[-1]), *shape)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.integer[Any]]) -> F32:
        found = np.empty((len(rows), *self.shape[1:]), np.float32)
        whose = np.searchsorted(self._starts, rows, side="right") - 1
        for place, (row, part) in enumerate(zip(rows, whose, strict=True)):
            found[place] = self._parts[part][row - self._starts[part]]
        return found
