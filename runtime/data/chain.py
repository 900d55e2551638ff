"""The chain that made epochs from a continuous recording, as JSON: its form, and where two chains differ.

``{"steps": [{"name": "filter", "sos": [[…six numbers…], …], "causal": true}, {"name": "decimate", "factor": 4},
{"name": "whiten", "file": "whitening.safetensors", "sha256": "…"}, {"name": "baseline", "tmin": -0.2, "tmax": 0.0}]}``:
steps in their order, each with a name and whatever parameters it has. Wherever they occur, `sos` are second-order
sections, `causal` is true or false, and `file` names a file in the data folder, whose SHA-256 stands beside it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError, shown
from .json_types import is_number, is_text, plain_json

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORM = 'give {"steps": […]}, the steps in their order'
_MOST_SHOWN = 80


def checked_chain(chain: object) -> dict[str, Any]:
    """The chain in JSON's own types; tuples, and numpy's numbers and arrays, become lists and numbers.

    Raises
    ------
    InputError
        It has another form; the message names the step and its parameter.
    """
    if not isinstance(chain, Mapping):
        raise InputError(f"signal is {shown(chain)}: {_FORM}")
    content: dict[str, Any] = plain_json(chain, "signal")
    steps = content.get("steps")
    if set(content) != {"steps"} or not isinstance(steps, list):
        raise InputError(f"signal is {shown(content)}: {_FORM}")
    for index, step in enumerate(steps):
        if not isinstance(step, Mapping) or not is_text(step.get("name")):
            raise InputError(f"step {index} of signal is {shown(step)}: give an object with a name, such as 'filter'")
        _check_step(step, f"of step {index} ({shown(step['name'])}) of signal")
    _check_files(steps)
    return content


def _check_files(steps: Sequence[Mapping[str, Any]]) -> None:
    """Refuse one name for two files; disks of Windows and macOS do not tell capitals from small letters."""
    seen: dict[str, tuple[str, str]] = {}
    for step in steps:
        if "file" not in step:
            continue
        given = (step["file"], step["sha256"])
        before = seen.setdefault(step["file"].lower(), given)
        if before != given:
            raise InputError(
                f"two steps of signal name the files {shown(before[0])} (SHA-256 {before[1][:12]}…) and "
                f"{shown(given[0])} (SHA-256 {given[1][:12]}…): give the second file another name"
            )


def _check_step(step: Mapping[str, Any], which: str) -> None:
    if "sos" in step and not _is_sos(step["sos"]):
        raise InputError(
            f"sos {which} is {shown(step['sos'])}: give second-order sections, rows of six numbers [b0, b1, b2, 1, a1, "
            "a2] as scipy.signal has them"
        )
    if "causal" in step and not isinstance(step["causal"], bool):
        raise InputError(f"causal {which} is {shown(step['causal'])}: give true or false")
    if "file" in step:
        if not isinstance(step["file"], str) or not _FILE.fullmatch(step["file"]):
            raise InputError(f"file {which} is {shown(step['file'])}: give the name of a file in the data folder")
        if not isinstance(step.get("sha256"), str) or not _SHA256.fullmatch(step["sha256"]):
            raise InputError(f"sha256 {which} is {shown(step.get('sha256'))}: give the file's SHA-256 in hexadecimal")


def _is_sos(sos: object) -> bool:
    rows = isinstance(sos, list) and bool(sos) and all(isinstance(row, list) and len(row) == 6 for row in sos)
    return rows and all(all(map(is_number, row)) and row[3] == 1 for row in sos)  # type: ignore[attr-defined]


def files_of(chain: Mapping[str, Any] | None) -> dict[str, str]:
    """The files that a checked chain names, and their SHA-256."""
    steps = [] if chain is None else chain["steps"]
    return {step["file"]: step["sha256"] for step in steps if "file" in step}


def same_chain(fitted: Mapping[str, Any] | None, given: Mapping[str, Any] | None) -> str | None:
    """Where two checked chains differ, in words; None where they do not, or where one is not known.

    A parameter that is null is one that is not given.
    """
    if fitted is None or given is None or fitted == given:
        return None
    a, b = fitted["steps"], given["steps"]
    for index, (expected, found) in enumerate(zip(a, b, strict=False)):
        if expected["name"] != found["name"]:
            return (
                f"step {index} of the signal chain is {shown(expected['name'])} there and {shown(found['name'])} here"
            )
        for name in sorted(expected.keys() | found.keys()):
            if expected.get(name) != found.get(name):
                there, here = _short(json.dumps(expected.get(name)), json.dumps(found.get(name)))
                which = f"{name} of step {index} ({shown(expected['name'])}) of the signal chain"
                return f"{which} is {there} there and {here} here"
    return f"the signal chain has {len(a)} steps there and {len(b)} here" if len(a) != len(b) else None


def _short(there: str, here: str) -> tuple[str, str]:
    """Two different texts, cut where they are long, but never before they differ."""
    if max(len(there), len(here)) <= _MOST_SHOWN:
        return there, here
    same = len(os.path.commonprefix([there, here]))
    start = max(0, same - _MOST_SHOWN // 2)
    return _cut(there, start), _cut(here, start)


def _cut(text: str, start: int) -> str:
    end = start + _MOST_SHOWN
    return ("..." if start else "") + text[start:end] + ("..." if len(text) > end else "")
