"""What makes a run folder belong to one run: settings.json, written first and compared on every resume."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..files import check_format, read_json, write_json

SETTINGS_VERSION = 1
# The parts that decide the pictures. Others, such as notes and how the models were named, may differ.
COMPARED = ("settings", "versions", "hashes", "data")


def claim_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write settings.json, or check that the one there says the same.

    Parameters
    ----------
    folder
        The run folder; made where it is missing.
    identity
        JSON-ready values under the names of `COMPARED`, and anything else worth keeping.

    Raises
    ------
    FileError
        The folder belongs to a run with other settings (the message names what differs), holds the results or stimuli
        of something else, or cannot be written.
    """
    path = folder / "settings.json"
    content = {"format": "minddiffuser-run-settings", "version": SETTINGS_VERSION, **identity}
    if path.exists():
        there = read_json(path, "the run's settings")
        check_format(there, path, "run-settings", SETTINGS_VERSION)
        _refuse_difference(folder, there, content)
        return
    if any((folder / name).exists() for name in ("images", "journal", "stimuli", "curves")):
        raise FileError(
            f"{folder} holds pictures or curves but no settings.json: give another --out folder, or empty this one"
        )
    write_json(path, content)


def _refuse_difference(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    # Through JSON, so that a tuple equals the list it was written as.
    given = json.loads(json.dumps({name: here.get(name) for name in COMPARED}))
    before, now = _flat({name: there.get(name) for name in COMPARED}), _flat(given)
    differing = [name for name in {**before, **now} if before.get(name, "absent") != now.get(name, "absent")]
    if not differing:
        return
    told = "; ".join(
        f"{n}: {_short(before.get(n, 'absent'))} there, {_short(now.get(n, 'absent'))} now" for n in differing[:4]
    )
    more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
    raise FileError(
        f"the run folder {folder} belongs to a run with other settings ({told}{more}): "
        "give another --out folder, or the same settings again"
    )


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix: content}
    return {key: v for name, part in content.items() for key, v in _flat(part, f"{prefix}.{name}".strip(".")).items()}


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:16]}…{text[-4:]}"


@contextmanager
def alone_in(folder: Path, told: Path | None = None) -> Iterator[None]:
    """Hold the folder's lock, so that two processes never write one; a killed process loses it by itself.

    Where the system has no such locks, nothing is held.

    Parameters
    ----------
    folder
        Made where it is missing.
    told
        What messages name instead of it.

    Raises
    ------
    FileError
        Another process is working in the folder, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise FileError(
            f"the folder {told or folder} cannot be written ({error.strerror}): choose another one"
        ) from error
    try:
        _lock(lock, told or folder)
        yield
    finally:
        os.close(lock)


def _lock(lock: int, folder: Path) -> None:
    try:
        import fcntl
    except ModuleNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileError(f"another process is working in {folder}: wait for it, or give another folder") from None
    except OSError:
        return  # a network drive without locks


def remove_drafts(folder: Path) -> None:
    """Take away what a killed process left half-written. Only for the one who holds the folder's lock."""
    for part in ("", "images/*", "stimuli", "curves", "journal"):
        for draft in folder.glob(f"{part}/.*.draft" if part else ".*.draft"):
            draft.unlink(missing_ok=True)
