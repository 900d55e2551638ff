"""Where a data folder is written, and which one may be replaced.

A lock beside the folder keeps two processes from making the same one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import FileError, InputError
from ..files import read_json, writing
from ..locks import beside as lock_of
from ..locks import locked
from ..output import check_place, contents, is_desktop, real, restore
from .chain import checked_chain, files_of
from .schema import CONTENT, SPLITS, as_version_2

_PICTURE = re.compile(r"\d{6,}\.png")


def check_target(folder: Path | str, *, replace: bool = False) -> None:
    """Refuse a folder into which :func:`write_data` would not write; call it before hours of work.

    Raises
    ------
    FileError
        The place is a file, cannot be written, or holds something that is not a data folder, or one that may not be
        replaced, or one with other files in it; or another process is writing it.
    """
    shown, folder = Path(folder), real(folder)
    if os.path.lexists(lock_of(folder)):  # somebody works there, or did: only under the lock is it as it will stay
        with claimed(shown, replace=replace):
            return
    check_place(folder, f".{folder.name}.{os.getpid()}.draft", beside=True)
    _check_free(folder, shown, replace)


@contextmanager
def claimed(folder: Path | str, *, replace: bool = False) -> Iterator[None]:
    """Hold the right to write a data folder, after the checks of :func:`check_target`.

    Hold it from before the work until the folder is in its place, so that of two processes that make the same folder
    the second says so at once, and not after its work.

    Raises
    ------
    FileError
        As of :func:`check_target`.
    """
    shown, folder = Path(folder), real(folder)
    check_place(folder, f".{folder.name}.{os.getpid()}.draft", beside=True)
    with locked(lock_of(folder), shown):
        restore(folder)
        _check_free(folder, shown, replace)
        yield


def _check_free(folder: Path, shown: Path, replace: bool) -> None:
    with writing(shown):
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise FileError(f"{shown} is a file: choose another name for the data folder")
        if contents(folder):
            _check_replaceable(folder, str(shown), replace)


def _check_replaceable(folder: Path, shown: str, replace: bool) -> None:
    try:
        description = as_version_2(read_json(folder / "data.json", "the description"), folder / "data.json")
    except FileError:
        raise FileError(f"{shown} holds other files and is not a data folder: choose a new or empty folder") from None
    if not replace:
        raise FileError(f"{shown} is a data folder already: choose another name, or replace it with --force")
    stray = _stray(folder, _own_files(description))
    if stray is not None:
        raise FileError(
            f"{shown} holds {stray}, which is no part of a data folder and would be lost: "
            "move it elsewhere, or choose another name"
        )
    if Path.cwd().is_relative_to(folder):
        raise FileError(f"{shown} cannot be replaced while you are in it: change to another folder and try again")


def _own_files(description: Mapping[str, Any]) -> tuple[str, ...]:
    """The files that the signal chain names, in whatever state the description is: the folder is to be replaced."""
    try:
        return tuple(files_of(checked_chain(description.get("signal"))))
    except InputError:
        return ()


def _stray(folder: Path, own: tuple[str, ...]) -> str | None:
    """Something in a data folder that does not belong there, relative to it."""
    allowed = [("", (*CONTENT, *own)), ("stimuli", SPLITS)]
    for place, names in allowed:
        if (folder / place).is_dir():
            for path in sorted((folder / place).iterdir()):
                if path.name not in names and not is_desktop(path.name):
                    return str(path.relative_to(folder))
    for split in SPLITS:
        if (folder / "stimuli" / split).is_dir():
            for path in sorted((folder / "stimuli" / split).iterdir()):
                if not _PICTURE.fullmatch(path.name) and not is_desktop(path.name):
                    return str(path.relative_to(folder))
    return None
