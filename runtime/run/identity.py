"""What makes a run folder belong to one run: settings.json, written first and compared on every resume."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..files import check_format, read_json, write_json
from ..output import check_output, draft_of
from .controls import CONTROLS

SETTINGS_VERSION = 1
SETTINGS = "settings.json"
# The parts that decide the pictures. Others, such as notes and how the models were named, may differ.
COMPARED = ("settings", "versions", "hashes", "data")
_BACKEND, _NAME = "settings.backend", re.compile(r"[a-z-]{1,20}")
# No machine has more threads than this: a larger number in a run folder is an accident.
_MOST_THREADS = 4096
# The files that a run writes, by their folder: only drafts of these are taken away.
_NUMBERED = re.compile(r"\d{6,}\.(png|json)")
_KINDS = ("stage1", "stage2", *CONTROLS)
_FOLDERS = (*(f"images/{kind}" for kind in _KINDS), "stimuli", "curves", "journal")
_FILES = (SETTINGS, "summary.json", "trials.json", "measured.safetensors", "evidence.json", "report.html")


def check_run_folder(folder: Path) -> bool:
    """Refuse a folder into which a run must not write: one that is neither new, nor empty, nor a run folder.

    Returns
    -------
    Whether it is a run folder already.

    Raises
    ------
    FileError
        See :func:`~minddiffuser.runtime.output.check_output`.
    """
    return check_output(folder, what="run folder", marker=SETTINGS, kind="run-settings")


def require_run_folder(folder: Path) -> None:
    """Refuse a folder that is no run folder, before a page is written into it.

    Raises
    ------
    FileError
        It is missing, or something else.
    """
    if not folder.exists():
        raise FileError(f"the run folder {folder} does not exist: give the folder that md-reconstruct run wrote")
    if not check_run_folder(folder):
        raise FileError(f"{folder} is empty and no run folder: give the folder that md-reconstruct run wrote")


def check_same_run(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a run folder that differs in what `identity` says: all that is known before the networks are opened.

    Raises
    ------
    FileError
        The folder is damaged, or belongs to a run with other settings.
    """
    if check_run_folder(folder):
        _refuse_difference(folder, _read_settings(folder), identity, whole=False)


def claim_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write settings.json, or check that the one there says the same, and write what is not compared again.

    Notes of before stay where none is given now.

    Parameters
    ----------
    folder
        The run folder; made where it is missing.
    identity
        JSON-ready values under the names of `COMPARED`, and anything else worth keeping.

    Raises
    ------
    FileError
        The folder belongs to a run with other settings (the message names what differs), holds something else, or
        cannot be written.
    """
    if check_run_folder(folder):
        there = _read_settings(folder)
        _refuse_difference(folder, there, identity, whole=True)
        # Through JSON, as what is there.
        given = json.loads(json.dumps({name: part for name, part in identity.items() if name not in COMPARED}))
        changed = {**there, **{name: part for name, part in given.items() if name != "notes" or part}}
        if changed != there:
            write_json(folder / SETTINGS, changed)
        return
    content = {"format": "minddiffuser-run-settings", "version": SETTINGS_VERSION, **identity}
    write_json(folder / SETTINGS, content)


def earlier_computing(folder: Path) -> tuple[str | None, int | None]:
    """The backend and the number of CPU threads of the run folder's earlier run; anything may stand there."""
    path = folder / SETTINGS
    settings = read_json(path, "the run's settings").get("settings") if path.exists() else None
    known = settings if isinstance(settings, dict) else {}
    backend, threads = known.get("backend"), known.get("threads")
    good = isinstance(threads, int) and not isinstance(threads, bool) and 0 < threads <= _MOST_THREADS
    return backend if isinstance(backend, str) else None, threads if good else None


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    content = read_json(path, "the run's settings")
    check_format(content, path, "run-settings", SETTINGS_VERSION)
    return content


def _refuse_difference(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any], *, whole: bool) -> None:
    """Compare what both say; with `whole`, `here` says everything, and what it does not say differs too."""
    # Through JSON, so that a tuple equals the list it was written as.
    given = json.loads(json.dumps({name: here.get(name, {}) for name in COMPARED}))
    before, now = _flat({name: there.get(name) for name in COMPARED}), _flat(given)
    # A library that is not used now decides nothing: which ones are used follows from the settings.
    known = [name for name in before if whole and not name.startswith("versions.")]
    differing = [
        name for name in dict.fromkeys((*known, *now)) if before.get(name, "absent") != now.get(name, "absent")
    ]
    if not differing:
        return
    differences = "; ".join(
        f"{n}: {_short(before.get(n, 'absent'))} there, {_short(now.get(n, 'absent'))} now" for n in differing[:4]
    )
    more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
    raise FileError(
        f"the run folder {folder} belongs to a run with other settings ({differences}{more}): "
        f"give another --out folder, or the same settings again{_backend_of(before) if _BACKEND in differing else ''}"
    )


def _backend_of(before: Mapping[str, Any]) -> str:
    """The option that asks for the backend that "auto" took before."""
    name = before.get(_BACKEND)
    return f" (--backend {name})" if isinstance(name, str) and _NAME.fullmatch(name) else ""


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix: content}
    return {key: v for name, part in content.items() for key, v in _flat(part, f"{prefix}.{name}".strip(".")).items()}


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:16]}…{text[-4:]}"


def remove_drafts(folder: Path) -> None:
    """Take away what a killed process left half-written. Only for the one who holds the folder's lock."""
    for path in folder.glob(".*.draft"):
        if draft_of(path.name) in _FILES:
            path.unlink(missing_ok=True)
    for part in _FOLDERS:
        for path in (folder / part).glob(".*.draft"):
            if _NUMBERED.fullmatch(draft_of(path.name) or ""):
                path.unlink(missing_ok=True)
