"""A judge's answers: one JSON object in a line, on the disk before the page hears that it is kept.

An answer says which side was chosen and not which picture: the file stays blind until the analysis reads the order.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..closing import Closing
from ..data.json_types import is_whole
from ..errors import FileError
from ..files import cannot_open, writing
from .study import Order

SIDES = ("left", "right")
INPUTS = ("keyboard", "mouse", "touch", "pen")
LONGEST_MS = 1e8


def read_answers(path: Path, order: Order) -> list[dict[str, Any]]:
    """The answers in order; none where there is no file.

    A last line that a kill cut off is no answer: the page had not been sent its receipt.

    Parameters
    ----------
    path
        Of the file.
    order
        Of the judge; every answer names its hash.

    Raises
    ------
    FileError
        A line is no answer, of another order, or not the next one, or there are more than showings.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot_open("the answers", path, error) from error
    answers = [_answer(path, number, line, order.hash) for number, line in enumerate(lines[:-1])]
    n_all = len(order.showings)
    if len(answers) > n_all:
        raise FileError(
            f"{path} has {len(answers)} answers, {n_all} were planned: restore the file as the program wrote it"
        )
    return answers


def _answer(path: Path, number: int, line: bytes, order: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FileError(f"line {number + 1} of {path} is damaged ({error}): restore the file from a copy") from None
    answer = content if isinstance(content, dict) else {}
    if answer.get("order") != order:
        raise FileError(
            f"line {number + 1} of {path} does not belong to this judge's order of trials: put each file back where "
            "it was written"
        )
    if not is_whole(answer.get("showing")) or answer["showing"] != number or not is_answer(answer):
        raise FileError(
            f"line {number + 1} of {path} is not answer {number + 1}: restore the file as the program wrote it"
        )
    return answer


def is_answer(fields: Mapping[str, Any]) -> bool:
    """Whether the fields that the analysis reads are those of an answer."""
    return (
        fields.get("choice") in SIDES
        and is_number(fields.get("response_ms"), LONGEST_MS)
        and fields.get("input") in INPUTS
        and isinstance(fields.get("away"), bool)
    )


def is_number(value: object, most: float) -> bool:
    """Whether a value is a number from 0 to `most`; NaN is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


class AnswerFile(Closing):
    """One judge's file, open for more. The caller holds the judge's lock.

    Parameters
    ----------
    path
        Of the file, made where it is missing.
    order
        Of the judge.

    Raises
    ------
    FileError
        It is damaged, or cannot be written.
    """

    def __init__(self, path: Path, order: Order) -> None:
        self._path, self._order = path, order.hash
        self._lock = threading.Lock()  # a request may still be under way when the server ends
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
            It could not be written whole, and may be tried again: nothing of it is there. Or the file was closed.
        """
        content = {"showing": self.n, "order": self._order, **answer}
        line = (json.dumps(content, allow_nan=False) + "\n").encode()
        with self._lock, writing(self._path):
            if self._file is None:
                raise FileError(f"{self._path} was closed before the answer came: run the same command again")
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
        """Close the file, after an answer that is being written."""
        with self._lock:
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
