"""Recordings in files that others wrote, to be replayed, played and verified."""

from __future__ import annotations

from pathlib import Path

from ...runtime.errors import FileError
from ..recording.names import SESSION_FILE, SIGNAL_FILE
from .mne_file import open_mne
from .recorded import Choice, Recorded
from .xdf_file import is_xdf, open_xdf


def open_file(path: Path, choice: Choice) -> Recorded:
    """Open a session of ours, an XDF file, or a recording that MNE reads with its annotations and triggers.

    Raises
    ------
    FileError
        It is missing, damaged, or of no kind that can be read.
    InputError
        It has no stream or channel of the names that are chosen, or several that fit.
    """
    if not path.exists():
        raise FileError(f"{path} does not exist: give an XDF file, or a recording that MNE reads")
    if (path / SESSION_FILE).is_file():
        path = path / SIGNAL_FILE
    return open_xdf(path, choice) if is_xdf(path) else open_mne(path, choice)
