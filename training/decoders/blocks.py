"""Targets are fitted a block at a time: memory for weights is bounded, and a finished block need not be made again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..solvers.columns import Columns
from .base import Decoder

# Targets whose weights are held at once, at least this many and at least this many per value of a trial (voxel): a
# decoder prepares for the responses (their Gram matrix) once per block, and with these a block's weights take a few
# times that matrix's memory at most.
_BLOCK, _BLOCK_PER_VALUE = 4096, 4


def block_size(decoder: Decoder, response_shape: tuple[int, ...]) -> int:
    """How many targets to fit at a time to responses (n_trials, …) of this shape.

    What memory allows, or less where the decoder says that it costs little. It depends on nothing that an interruption
    changes, so that the blocks of a fit that goes on are the same.
    """
    n_trials, n_values = response_shape[0], math.prod(response_shape[1:])
    most = max(_BLOCK, _BLOCK_PER_VALUE * n_values)
    ask = getattr(decoder, "block", None)
    wanted = None if ask is None else ask(n_trials, n_values)
    return most if wanted is None else min(most, max(1, int(wanted)))


def goes_in_blocks(decoder: Decoder) -> bool:
    """Whether a decoder's targets may be fitted apart from one another."""
    return hasattr(decoder, "block")


def blocks(n: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each block of n targets."""
    return ((start, min(start + size, n)) for start in range(0, n, size))


class Block:
    """Some consecutive targets of many, as :class:`Columns`."""

    def __init__(self, whole: Columns, start: int, stop: int) -> None:
        self._whole, self._start, self._stop = whole, start, stop

    @property
    def shape(self) -> tuple[int, int]:
        return self._whole.shape[0], self._stop - self._start

    def columns(self, start: int, stop: int) -> NDArray[np.float64]:
        found: NDArray[Any] = self._whole.columns(self._start + start, self._start + stop)
        return found
