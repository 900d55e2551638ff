"""Which markers are of pictures that the decoder was trained on, by the table of events and pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...runtime.data.event_table import code_of, read_cells
from ...runtime.data.schema import SPLITS
from ...runtime.errors import FileError, InputError, shown

# Markers that a message names, and texts of markers that are kept for it.
_NAMED, _MOST_KEPT = 8, 1000


@dataclass(frozen=True, kw_only=True)
class Known:
    """Markers, as :func:`~...runtime.data.event_table.code_of` writes them, of training and of test pictures."""

    path: Path
    train: frozenset[str]
    test: frozenset[str]


def read_known(path: Path, session: str) -> Known:
    """Read the table that ``md-train prepare recording`` takes: its columns event and split, and file where it has one.

    Parameters
    ----------
    path
        CSV or TSV; other columns are passed over.
    session
        The session's name: rows of other files say nothing of it.

    Raises
    ------
    FileError, InputError
        It is missing or no table, lacks a column, or says two things of one event.
    """
    columns, rows = read_cells(
        path, ("event", "split"), "give the table of md-train prepare recording, with the columns event and split"
    )
    splits: dict[str, str] = {}
    for line, cells in rows:
        if "event" not in cells or ("file" in cells and not _is_of(cells["file"], session)):
            continue
        split, code = cells.get("split", ""), code_of(cells["event"])
        if split not in SPLITS:
            raise InputError(f"{path.name}, line {line}: split is {shown(split)}: give train or test")
        if splits.setdefault(code, split) != split:
            raise InputError(
                f"{path.name}, line {line}: the event {shown(cells['event'])} is of a {split} picture here and of a "
                f"{splits[code]} picture before: give one of the two"
            )
    if not splits:
        of_others = f" of the session {session!r}" if "file" in columns else ""
        raise FileError(f"{path} names no event{of_others}: give one for each picture, in the column event")
    return Known(
        path=path,
        train=frozenset(code for code, split in splits.items() if split == "train"),
        test=frozenset(code for code, split in splits.items() if split == "test"),
    )


def _is_of(file: str, session: str) -> bool:
    """Whether a row's file is this session: its folder's name, or the XDF file in it."""
    parts = PurePosixPath(file.replace("\\", "/")).parts
    return bool(parts) and session in (parts[-1], *parts[-2:-1])


class Check:
    """Markers that are of no training picture, as they come; memory is bounded.

    Parameters
    ----------
    known
        None: every marker is taken for one.
    """

    def __init__(self, known: Known | None) -> None:
        self._known = known
        self._strange: dict[str, Counter[str]] = {"test": Counter(), "": Counter()}
        self._n_more = 0

    def add(self, text: str) -> None:
        """Look at an event's marker."""
        if self._known is None:
            return
        code = code_of(text)
        if code in self._known.train:
            return
        found = self._strange["test" if code in self._known.test else ""]
        if text in found or len(found) < _MOST_KEPT:
            found[text] += 1
        else:
            self._n_more += 1

    def require_none(self) -> None:
        """Refuse them.

        Raises
        ------
        InputError
            There are any; the message names them.
        """
        if self._known is None or not any(self._strange.values()):
            return
        parts = [
            f"{sum(found.values())} markers {what}: {_listed(found)}"
            for split, what in (("test", "are of test pictures"), ("", f"are not in {self._known.path.name}"))
            if (found := self._strange[split])
        ]
        more = f", and {self._n_more} more" if self._n_more else ""
        raise InputError(
            f"{'; '.join(parts)}{more}: the normaliser is fitted on trials of training pictures alone: choose these "
            "with --events, or correct the table"
        )


def _listed(found: Counter[str]) -> str:
    named = ", ".join(f"{shown(text)} ({count})" for text, count in found.most_common(_NAMED))
    return named + (", …" if len(found) > _NAMED else "")
