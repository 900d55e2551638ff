"""A judge's answers: one JSON object in a line, on the disk before the page hears that it is kept.

An answer says which side was chosen and not which picture: the file stays blind until the analysis reads the order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..closing import Closing
from ..data.json_types import is_whole
from ..errors import FileError
from ..files import cannot_open, writing

SIDES = ("left", "right")


def read_answers(path: Path, order: str) -> list[dict[str, Any]]:
    """The answers in order; none where there is no file.

    A last line that a kill cut off is no answer: nobody was told that it was kept.

    Parameters
    ----------
    path
        Of the file.
    order
        Hash of the judge's order, which every answer names.

    Raises
    ------
    FileError
        A line is no answer, of another order, or not the next one.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot_open("the answers", path, error) from error
    return [_answer(path, number, line, order) for number, line in enumerate(lines[:-1])]


def _answer(path: Path, number: int, line: bytes, order: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FileError(f"line {number + 1} of {path} is damaged ({error}): bring the file back") from None
    answer = content if isinstance(content, dict) else {}
    if answer.get("order") != order:
        raise FileError(f"line {number + 1} of {path} belongs to another order: put each file where it was written")
    if not is_whole(answer.get("showing")) or answer["showing"] != number or answer.get("choice") not in SIDES:
        raise FileError(
            f"line {number + 1} of {path} is not answer {number + 1}: bring the file back as it was written"
        )
    return answer


class AnswerFile(Closing):
    """One judge's file, open for more. The caller holds the judge's lock.

    Parameters
    ----------
    path
        Of the file, made where it is missing.
    order
        Hash of the judge's order.

    Raises
    ------
    FileError
        It is damaged, or cannot be written.
    """

    def __init__(self, path: Path, order: str) -> None:
        self._path, self._order = path, order
        self.n = len(read_answers(path, order))
        with writing(path):
            new = not path.exists()
            self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self._end = self._whole_lines(self._file)
            os.ftruncate(self._file, self._end)
            if new and os.name == "posix":  # or a power cut takes the file away with the answers that were kept
                _keep_name(path)

    def append(self, answer: Mapping[str, Any]) -> None:
        """Write the next answer and wait for the disk.

        Raises
        ------
        FileError
            It could not be written whole; then nothing of it is there, and it may be tried again.
        """
        assert self._file is not None, "closed"
        content = {"showing": self.n, "order": self._order, **answer}
        line = (json.dumps(content, allow_nan=False) + "\n").encode()
        with writing(self._path):
            try:
                os.lseek(self._file, self._end, os.SEEK_SET)
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(self._file, rest) :]
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, self._end)
                raise
        self._end += len(line)
        self.n += 1

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @staticmethod
    def _whole_lines(file: int) -> int:
        """How many bytes are whole lines."""
        with open(file, "rb", closefd=False) as opened:
            return opened.read().rfind(b"\n") + 1


def _keep_name(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
