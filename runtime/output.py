"""Output folders: a command writes into a folder that is new, empty, or of the same kind, and into no other.

A folder whose files are written one by one has a marker file; one that is replaced whole grows under a hidden name
beside its place, and two renames exchange them.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import FileError
from .files import read_json, writing

# Desktops and network drives leave these in every folder that somebody looks at.
_SYNOLOGY = "@eaDir"  # the one folder among them
DESKTOP = frozenset({".DS_Store", "Thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", "Icon\r", _SYNOLOGY})
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


def is_left(path: Path) -> bool:
    """Whether a process of ours or a desktop left it: a file, never a folder but Synology's."""
    return _SYNOLOGY in (path.name, path.parent.name) or (
        is_leftover(path.name) and path.is_file() and not path.is_symlink()
    )


def contents(folder: Path) -> list[str]:
    """The names in a folder that are the user's, sorted."""
    return sorted(path.name for path in folder.iterdir() if not is_left(path))


def check_free(folder: Path, what: str) -> None:
    """Refuse a folder that is neither new nor empty.

    Parameters
    ----------
    folder
        As the user gave it.
    what
        The kind of folder in words, such as "run folder".

    Raises
    ------
    FileError
        It is a file, cannot be read, or holds something.
    """
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise FileError(f"{folder} is a file: give a new or empty folder as {what}")
        return
    try:
        names = contents(folder)
    except PermissionError as error:
        raise FileError(f"{folder} cannot be read ({error.strerror}): give another folder as {what}") from error
    if names:
        raise FileError(f"{folder} holds {names[0]} and is not a {what}: give a new or empty folder")


def check_output(folder: Path, *, what: str, marker: str, kind: str) -> bool:
    """Refuse a folder into which a command must not write; call it before anything is opened or made.

    Parameters
    ----------
    folder, what
        As of :func:`check_free`.
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
    path = folder / marker
    known = os.access(folder, os.R_OK) and path.is_file()
    if not known:
        check_free(folder, what)
    check_place(folder)
    if known and read_json(path, f"the {what}'s {marker}").get("format") != f"minddiffuser-{kind}":
        raise FileError(f"{folder} holds a {marker} that is not of a {what}: give a new or empty folder")
    return known


def check_place(folder: Path | str, *names: str, beside: bool = False) -> None:
    """Refuse a folder that cannot be made or written, without making it; call it before hours of work.

    Parameters
    ----------
    folder : a folder to be made, or to be written into.
    names : the longest names that will be made in it, or with `beside` next to it.
    beside : whether it is replaced whole, by what is written beside it.

    Raises
    ------
    FileError
        A name is too long, a parent is a file, or the nearest folder that exists may not be written.
    """
    shown, folder = Path(folder), real(folder)
    existing = folder.parent if beside else folder
    missing = [folder.name, *names]
    while not os.path.lexists(existing) and existing != existing.parent:
        missing.append(existing.name)
        existing = existing.parent
    with writing(shown):
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{existing} is a file")
        for name in missing:  # one by one: below a folder that is not there yet, no name is too long
            with suppress(FileNotFoundError):
                (existing / name).lstat()
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"no permission to write to {existing}")


def real(folder: Path | str) -> Path:
    """A folder itself, whatever links lead to it."""
    # Not Path.resolve, which raises for a loop of links: that is found where the place is first used.
    return Path(os.path.realpath(folder))


@contextmanager
def replacing_folder(folder: Path | str, marker: str, *, check: Callable[[], object] | None = None) -> Iterator[Path]:
    """Give a new folder beside `folder`; put it in its place on success, remove it on failure.

    The old one is deleted only when the new one is in its place: whatever happens in between, an interruption too,
    `folder` is then either the old one or the new one. What a killed process left is put right by :func:`restore`.

    Parameters
    ----------
    folder
        Whose lock (:func:`~.locks.beside`) the caller holds.
    marker
        The file that makes it a folder of its kind.
    check
        Called before the exchange: raises where `folder` is not to be replaced any more.

    Raises
    ------
    FileError
        It cannot be written.
    """
    shown, folder = Path(folder), real(folder)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    try:
        with writing(shown):
            folder.parent.mkdir(parents=True, exist_ok=True)
            restore(folder)
            draft.mkdir()
            yield draft
            if check is not None:
                check()
            _exchange(draft, folder, marker)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _exchange(draft: Path, folder: Path, marker: str) -> None:
    if folder == Path.cwd() and not contents(folder):
        # Renaming the folder that somebody's shell is in would leave that shell in a deleted one.
        _fill(folder, draft, marker)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        if old.exists() and folder.exists():
            old.rename(draft)  # a half-deleted folder must not be taken for one that was moved away
            shutil.rmtree(draft, ignore_errors=True)


def _fill(folder: Path, draft: Path, marker: str) -> None:
    """Move everything from `draft` into the empty `folder`, the marker last: without it, it is nothing yet."""
    names = sorted((path.name for path in draft.iterdir()), key=lambda name: name == marker)
    try:
        for name in names:
            (draft / name).rename(folder / name)
    except BaseException:
        for name in names:
            if (folder / name).exists():
                (folder / name).rename(draft / name)
        raise


def restore(folder: Path) -> None:
    """Bring back a folder that a killed process had moved away, and remove what such processes left beside it.

    For the one who holds the lock: whoever made these is dead.
    """
    for path, kind in left_beside(folder):
        with suppress(OSError):
            if kind == "old" and not (folder.exists() and contents(folder)):
                shutil.rmtree(folder, ignore_errors=True)
                path.rename(folder)
            else:
                shutil.rmtree(path, ignore_errors=True)


def left_beside(folder: Path) -> list[tuple[Path, str]]:
    """What killed processes left of a folder, each with "old" or "draft"."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.\d+\.(old|draft)")
    try:
        found = [(path, pattern.fullmatch(path.name)) for path in sorted(folder.parent.iterdir())]
    except OSError:
        return []  # no parent yet, or one that cannot be listed: nothing that could be restored
    return [(path, match[1]) for path, match in found if match is not None]
