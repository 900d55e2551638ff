"""Responses that are made while they are written, block by block, so that a split may be larger than the memory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from ..files import replacing

# How safetensors names and orders types: the file is the one that its own writer would make.
_TYPES = {"int64": "I64", "float32": "F32"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Streamed:
    """One split's responses, for :class:`~.write_input.SplitData`, which need never be in memory together.

    Parameters
    ----------
    shape : (n_trials, *response_shape).
    blocks : called once for each time that the split is written; gives arrays (n, *response_shape) float32 one after
        the other, n_trials rows in all.
    """

    shape: tuple[int, ...]
    blocks: Callable[[], Iterable[NDArray[np.float32]]]

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, that of its blocks."""
        return np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]


def write_streamed(path: Path, arrays: Mapping[str, NDArray[Any] | Streamed]) -> None:
    """Write a safetensors file of float32 and int64 arrays, byte for byte as :func:`~..files.write_tensors` would.

    Raises
    ------
    ShapeError
        Blocks are of another shape or type than the stream states, or there are more or fewer rows.
    FileError
        The file cannot be written.
    """
    # Safetensors puts wide types first, and names in their order.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {}}
    start = 0
    for name in order:
        array = arrays[name]
        stop = start + math.prod(array.shape) * array.dtype.itemsize
        entry = {"dtype": _TYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, stop]}
        header[name], start = entry, stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    # Written in a row and not mapped: where the disk is full, a mapped file ends the process without a word.
    with replacing(path) as draft, open(draft, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            array = arrays[name]
            for block in _checked(array) if isinstance(array, Streamed) else (array,):
                file.write(np.ascontiguousarray(block).data)


def _checked(stream: Streamed) -> Iterator[NDArray[np.float32]]:
    row, n_trials = 0, len(stream)
    for block in stream.blocks():
        if block.dtype != np.float32 or block.shape[1:] != stream.shape[1:] or row + len(block) > n_trials:
            raise ShapeError(
                f"a block of responses is {block.dtype} {block.shape} from trial {row} on, expected float32 in all "
                f"{stream.shape}: give what `shape` states"
            )
        yield block
        row += len(block)
    if row != n_trials:
        raise ShapeError(f"the blocks of responses hold {row} trials, expected {n_trials}: give what `shape` states")
