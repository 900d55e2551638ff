"""A session's folder that is read: what the session was made with, what came of each marker, what was decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.data.json_types import is_label
from ...runtime.errors import FileError
from ...runtime.files import check_format, read_json
from .lines import read_lines
from .names import KIND, LEDGER_FILE, RESULTS_FILE, SESSION_FILE, SIGNAL_FILE, VERSION


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """The folder; `about` is session.json."""

    path: Path
    about: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The session's."""
        return str(self.about["id"])

    @property
    def signal(self) -> Path:
        """Its XDF file."""
        return self.path / SIGNAL_FILE

    def ledger(self) -> Iterator[dict[str, Any]]:
        """The lines of the ledger, in their order; a last one that a kill has cut is left out."""
        return read_lines(self.path / LEDGER_FILE)

    def results(self) -> Iterator[dict[str, Any]]:
        """The lines of the results, likewise."""
        return read_lines(self.path / RESULTS_FILE)


def open_session(path: Path) -> Session:
    """Open a session's folder to read it.

    Raises
    ------
    FileError
        It is none, is damaged, or of another release.
    """
    file = path / SESSION_FILE
    if path.is_dir() and not file.exists():
        raise FileError(f"{path} has no {SESSION_FILE}: give the folder that md-stream run --record has made")
    about = read_json(file, "the session's description")
    check_format(about, file, KIND, VERSION)
    if not is_label(about.get("id")) or not isinstance(about.get("about"), dict) or "state" not in about:
        raise FileError(f"{file} lacks the session's id, its state or what it was made with: it is damaged")
    return Session(path=path, about=about)
