"""Output folders: a command writes into a folder that is new, empty, or of the same kind, and into no other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .errors import FileError
from .files import read_json

# Desktops and network drives leave these in every folder that somebody looks at.
DESKTOP = frozenset({".DS_Store", "Thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", "Icon\r", "@eaDir"})
_DESKTOP = frozenset(name.lower() for name in DESKTOP)  # Windows writes "desktop.ini" and "Desktop.ini"
# What a process of ours leaves: a draft of files.replacing, or the lock of this folder or of one in it.
_DRAFT = re.compile(r"\.(?P<name>.+)\.\d+\.draft")
_LOCK = re.compile(r"\.(.+\.)?lock")


def is_desktop(name: str) -> bool:
    """Whether a desktop made a file of that name by itself ("._name" are macOS's on drives of other systems)."""
    return name.lower() in _DESKTOP or name.startswith("._")


def is_leftover(name: str) -> bool:
    """Whether a file of that name says nothing about whose a folder is."""
    return is_desktop(name) or _LOCK.fullmatch(name) is not None or _DRAFT.fullmatch(name) is not None


def draft_of(name: str) -> str | None:
    """The file that a draft was to become, or None where the name is not that of a draft."""
    match = _DRAFT.fullmatch(name)
    return None if match is None else match["name"]


def contents(folder: Path) -> Iterator[str]:
    """The names in a folder that belong to somebody, sorted."""
    return iter(sorted(path.name for path in folder.iterdir() if not is_leftover(path.name)))


def check_output(folder: Path, *, what: str, marker: str, kind: str) -> bool:
    """Refuse a folder into which a command must not write; call it before anything is opened or made.

    Parameters
    ----------
    folder
        As the user gave it.
    what
        The kind of folder in words, such as "run folder".
    marker
        The file that makes a folder one of this kind.
    kind
        Of the marker's format, "minddiffuser-<kind>".

    Returns
    -------
    bool
        Whether the folder is one of this kind already; False where it is new or empty.

    Raises
    ------
    FileError
        It is a file, cannot be read or written, or holds something else.
    """
    try:
        if not folder.is_dir():
            if folder.exists() or folder.is_symlink():
                raise FileError(f"{folder} is a file: give a new or empty folder as {what}")
            check_writable(folder, what)
            return False
        first = next(contents(folder), None)
    except PermissionError as error:
        raise FileError(f"{folder} cannot be read ({error.strerror}): give another folder as {what}") from error
    check_writable(folder, what)
    if first is None:
        return False
    path = folder / marker
    if not path.is_file():
        raise FileError(f"{folder} holds {first} and is not a {what}: give a new or empty folder")
    if read_json(path, f"the {what}'s {marker}").get("format") != f"minddiffuser-{kind}":
        raise FileError(f"{folder} holds a {marker} that is not of a {what}: give a new or empty folder")
    return True


def check_writable(folder: Path, what: str, *, beside: bool = False) -> None:
    """Say at once what would only be found when the first file is written.

    Parameters
    ----------
    folder, what
        See :func:`check_output`.
    beside
        Whether it is replaced whole, by what is written beside it.

    Raises
    ------
    FileError
        It cannot be made or written.
    """
    places = folder.absolute().parents if beside else (folder, *folder.absolute().parents)
    place = next(path for path in places if path.exists())
    if not place.is_dir():
        raise FileError(f"{folder} cannot be made, since {place} is a file: give another folder as {what}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise FileError(f"{folder} cannot be written (no permission in {place}): give another folder as {what}")
