"""A file of JSON lines that is only ever added to: after a kill all of them but perhaps the last are whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...runtime.errors import FileError
from .disk import Put, put

_FLAGS = os.O_CREAT | os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)


class Lines:
    """The file while it grows, which only its owner can read; `write` is what hands bytes to the system.

    Raises
    ------
    OSError
        The system does not let us write, here and in every method.
    """

    def __init__(self, path: Path, write: Put = put) -> None:
        self._write = write
        self._file = os.open(path, _FLAGS, 0o600)
        self._n_bytes = os.fstat(self._file).st_size

    def add(self, line: bytes) -> None:
        """Add a line with its end, whole or not at all."""
        view = memoryview(line)
        try:
            while view:
                view = view[self._write(self._file, view) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self._n_bytes)
            raise
        self._n_bytes += len(line)

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Sync and close; may be called twice."""
        if self._file >= 0:
            file, self._file = self._file, -1
            try:
                os.fsync(file)
            finally:
                os.close(file)


def line_of(entry: Mapping[str, Any]) -> bytes:
    """JSON without NaN as a line."""
    return json.dumps(dict(entry), ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """JSON objects, one a line; a last one that a kill has cut is left out.

    Raises
    ------
    FileError
        The file is missing, or a line before the last is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror or error}): check that it is there") from error
    for number, line in enumerate(lines[:-1], start=1):
        entry = _object(line)
        if entry is None:
            raise FileError(f"{path}, line {number} is damaged: run md-stream repair {path.parent}")
        yield entry


def is_entry(line: bytes) -> bool:
    """Whether a line is one that a session wrote."""
    return _object(line) is not None


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
