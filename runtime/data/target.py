"""Where a data folder is written: what may be replaced, and how one folder takes another's place.

The new folder grows under a hidden name beside the old one; then two renames exchange them. The old one is deleted
only when the new one is in its place, so that nothing that stops the process in between loses both. A lock beside the
folder keeps two processes from making the same one.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import FileError, InputError
from ..files import read_json
from ..locks import beside as lock_of
from ..locks import locked
from ..output import is_desktop
from .chain import check_chain, files_of
from .pictures import STIMULI
from .schema import SPLITS, as_version_2
from .trial_ids import TRIAL_IDS

_CONTENT = ("data.json", "captions.json", TRIAL_IDS, STIMULI, *(f"{split}.safetensors" for split in SPLITS), "stimuli")
_PICTURE = re.compile(r"\d{6,}\.png")


def check_target(folder: Path | str, *, replace: bool = False) -> None:
    """Refuse a folder into which :func:`write_data` would not write; call it before hours of work.

    Raises
    ------
    FileError
        The place is a file, cannot be written, or holds something that is not a data folder, or one that may not be
        replaced, or one with other files in it; or another process is writing it.
    """
    shown, folder = Path(folder), _real(folder)
    if os.path.lexists(lock_of(folder)):  # somebody works there, or did: only under the lock is it as it will stay
        with claimed(shown, replace=replace):
            return
    check_place(folder, f".{folder.name}.{os.getpid()}.draft", beside=True)
    _check_free(folder, shown, replace)


@contextmanager
def claimed(folder: Path | str, *, replace: bool = False) -> Iterator[None]:
    """Hold the right to write a data folder, after the checks of :func:`check_target`.

    Hold it from before the work until :func:`replacing_folder` is done, so that of two processes that make the same
    folder the second says so at once, and not after its work.

    Raises
    ------
    FileError
        As of :func:`check_target`.
    """
    shown, folder = Path(folder), _real(folder)
    check_place(folder, f".{folder.name}.{os.getpid()}.draft", beside=True)
    with locked(lock_of(folder), shown):
        _restore(folder)
        _check_free(folder, shown, replace)
        yield


def _check_free(folder: Path, shown: Path, replace: bool) -> None:
    try:
        if not os.path.lexists(folder):
            return
        if not folder.is_dir():
            raise FileError(f"{shown} is a file: choose another name for the data folder")
        if not _is_empty(folder):
            _check_replaceable(folder, str(shown), replace)
    except OSError as error:
        raise error if isinstance(error, FileError) else _cannot_write(shown, error) from error


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


def _is_empty(folder: Path) -> bool:
    return all(is_desktop(path.name) for path in folder.iterdir())


def _own_files(description: Mapping[str, Any]) -> tuple[str, ...]:
    """The files that the signal chain names, in whatever state the description is: the folder is to be replaced."""
    try:
        signal = description.get("signal")
        check_chain(signal)
        return tuple(files_of(signal))
    except InputError:
        return ()


def _stray(folder: Path, own: tuple[str, ...]) -> str | None:
    """Something in a data folder that does not belong there, relative to it."""
    allowed = [("", (*_CONTENT, *own)), ("stimuli", SPLITS)]
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


def check_place(folder: Path | str, *names: str, beside: bool = False) -> None:
    """Refuse a folder that cannot be made or written, without making it; call it before hours of work.

    Parameters
    ----------
    folder : a folder to be made, or to be written into.
    names : the longest names that will be made in it, or with `beside` next to it.

    Raises
    ------
    FileError
        A name is too long, a parent is a file, or the nearest folder that exists may not be written.
    """
    shown, folder = Path(folder), _real(folder)
    existing = folder.parent if beside else folder
    missing = [folder.name, *names]
    while not os.path.lexists(existing) and existing != existing.parent:
        missing.append(existing.name)
        existing = existing.parent
    try:
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{existing} is a file")
        for name in missing:  # one by one: below a folder that is not there yet, no name is too long
            _stat(existing / name)
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"no permission to write to {existing}")
    except OSError as error:
        raise _cannot_write(shown, error) from error


def _stat(path: Path) -> None:
    try:
        path.lstat()
    except FileNotFoundError:
        pass


@contextmanager
def replacing_folder(folder: Path | str) -> Iterator[Path]:
    """Give a new folder beside `folder`; put it in its place on success, remove it on failure.

    The caller holds :func:`claimed`. Whatever happens in between, an interruption too, `folder` is then either the old
    one or the new one. What a killed process left is put right by the next call.
    """
    shown, folder = Path(folder), _real(folder)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _restore(folder)
        draft.mkdir()
        yield draft
        _exchange(draft, folder, old)
    except OSError as error:
        raise error if isinstance(error, FileError) else _cannot_write(shown, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _exchange(draft: Path, folder: Path, old: Path) -> None:
    if folder == Path.cwd() and _is_empty(folder):
        # Renaming the folder that somebody's shell is in would leave that shell in a deleted one.
        _fill(folder, draft)
        return
    try:
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def _fill(folder: Path, draft: Path) -> None:
    """Move everything from `draft` into the empty `folder`, data.json last: without it, it is no data folder."""
    names = sorted((path.name for path in draft.iterdir()), key=lambda name: name == "data.json")
    try:
        for name in names:
            (draft / name).rename(folder / name)
    except BaseException:
        for name in names:
            if (folder / name).exists():
                (folder / name).rename(draft / name)
        raise


def _restore(folder: Path) -> None:
    """Bring back a folder that a killed process had moved away, and remove what such processes left.

    Under the lock: whoever made these is dead.
    """
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.\d+\.(old|draft)")
    try:
        left = [(path, pattern.fullmatch(path.name)) for path in sorted(folder.parent.iterdir())]
    except OSError:
        return  # no parent yet, or one that cannot be listed: nothing that could be restored
    for path, match in left:
        if match is None:
            continue
        with suppress(OSError):
            if match[1] == "old" and not folder.exists():
                path.rename(folder)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _real(folder: Path | str) -> Path:
    # Not Path.resolve, which raises for a loop of links: that is told where the place is first used.
    return Path(os.path.realpath(folder))


def _cannot_write(folder: Path, error: OSError) -> FileError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FileError(f"the disk is full while writing {folder}: free some space and run the same command again")
    name = f"{folder}" if len(f"{folder}") <= 120 else f"{str(folder)[:60]}…"
    return FileError(f"{name} cannot be written ({error.strerror or error}): choose another folder")
