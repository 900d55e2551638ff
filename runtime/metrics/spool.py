"""Rows of features that are too many for the memory and not worth keeping: a file that is gone when it is closed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self

import numpy as np

from ..files import writing
from .base import Array


class Spool:
    """Rows of one shape and type, added in blocks and read by number.

    Parameters
    ----------
    folder
        Where the file lies, without a name on most systems; a full disk is a :class:`~..errors.FileError` of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with writing(folder):
            self._file = TemporaryFile(dir=folder)  # closed by __exit__
        self._n_rows = 0
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.float32)

    def add(self, rows: Array) -> None:
        """Append rows (n, ...)."""
        if not self._n_rows:
            self._shape, self._dtype = rows.shape[1:], rows.dtype
        with writing(self._folder):
            self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
            self._file.flush()
        self._n_rows += len(rows)

    def rows(self, numbers: Sequence[int]) -> Array:
        """These rows, (n, ...), in memory."""
        mapped = np.memmap(self._file, self._dtype, "r", shape=(self._n_rows, *self._shape))
        return np.array(mapped[list(numbers)])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
