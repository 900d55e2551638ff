"""An experiment's folder: what was asked, which steps are finished, and what their cells measured.

OUT/experiment.json                 what was asked; another question is refused
OUT/DATA/checkpoints/, runs/        what the steps made
OUT/DATA/done/STEP.json             a finished step, what decides it, and its seconds
OUT/DATA/cells/CELL.json            what a cell measured
OUT/features/                       features of the stimuli, shared
OUT/report.html, table.*, figure.*  the result
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...runtime.errors import FileError
from ...runtime.files import check_format, hash_of_json, read_json, write_json
from ...runtime.output import check_output
from .base import Cell, Step
from .experiment import Experiment
from .subject import Plan, Subject
from .values import Values, read_values, write_values

MARKER = "experiment.json"
VERSION = 1
_KIND = "experiment"
_STEP = "experiment-step"


def claim(out: Path, experiment: Experiment, plan: Plan, subjects: Sequence[Subject]) -> None:
    """Write what is asked, or compare it with what was; a subject that is new is added.

    Raises
    ------
    FileError
        The folder holds another experiment, or one with other settings or other data of the same name.
    """
    asked = {"experiment": experiment.name, **plan.deciding()}
    data, more = {subject.label: subject.identity for subject in subjects}, dict[str, Any]()
    if check_output(out, what="folder of an experiment", marker=MARKER, kind=_KIND):
        there = _read(out)
        differing = [name for name in asked if there["settings"].get(name) != asked[name]]
        if differing:
            named = "; ".join(
                f"{n}: {_short(there['settings'].get(n))} there, {_short(asked[n])} now" for n in differing
            )
            raise FileError(
                f"{out} holds an experiment with other settings ({named}): give another --out, or the same settings "
                "again"
            )
        changed = [label for label, digest in data.items() if there["data"].get(label, digest) != digest]
        if changed:
            raise FileError(
                f"{out} holds results of other data named {changed[0]!r}: give another --out, or the same data again"
            )
        data, more = {**there["data"], **data}, there
        if data == there["data"]:
            return
    head = {"format": f"minddiffuser-{_KIND}", "version": VERSION}
    write_json(out / MARKER, {**more, **head, "settings": asked, "data": data})


def check_models(out: Path, digest: str) -> None:
    """Note the hash of the models that checkpoints are fitted for, or compare it with what was noted.

    Raises
    ------
    FileError
        Other models were given by the same name before: subjects' results would not belong together.
    """
    content = _read(out)
    there = content.setdefault("models_hash", digest)
    if there != digest:
        raise FileError(
            f"{out} holds results of other models of the same name, {_short(content['settings'].get('models'))}: give "
            "another --out, or those models again"
        )
    write_json(out / MARKER, content)


def check_claim(out: Path) -> None:
    """Refuse a folder that holds something else, before anything is opened or made."""
    if check_output(out, what="folder of an experiment", marker=MARKER, kind=_KIND):
        _read(out)


def _read(out: Path) -> dict[str, Any]:
    path = out / MARKER
    content: dict[str, Any] = read_json(path, "the experiment's settings")
    check_format(content, path, _KIND, VERSION)
    if not all(isinstance(content.get(name), dict) for name in ("settings", "data")):
        raise FileError(f"{path} is damaged: give another --out")
    return content


def _short(value: object) -> str:
    return json.dumps(value)[:60]


def finished_as(subject: Subject, step: Step) -> tuple[str, float] | None:
    """Of which kind a finished step was, and how many seconds it took; None where it is not finished.

    Raises
    ------
    FileError
        It was made with other settings.
    """
    path = _record(subject, step.folder)
    if not path.exists():
        return None
    content = read_json(path, "a finished step of the experiment")
    check_format(content, path, _STEP, VERSION)
    if content.get("key") != _key(step.describe()):
        raise FileError(
            f"{subject.out / step.folder} was made with other settings by another release: give another --out"
        )
    return str(content.get("kind", step.kind)), float(content.get("seconds", 0.0))


def finish(subject: Subject, step: Step, kind: str, seconds: float, cpu_seconds: float) -> None:
    """Note that a step is finished, and as which kind."""
    about = {"kind": kind, "settings": step.describe(), "key": _key(step.describe())}
    spent = {"seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1)}
    write_json(_record(subject, step.folder), {"format": f"minddiffuser-{_STEP}", "version": VERSION, **about, **spent})


def measured(subject: Subject, cell: Cell) -> Values | None:
    """What a cell measured; None where it did not."""
    path = _cell(subject, cell)
    return read_values(path) if path.exists() else None


def keep(subject: Subject, cell: Cell, values: Values) -> None:
    """Keep what a cell measured."""
    write_values(_cell(subject, cell), values)


def log_path(subject: Subject, step: Step) -> Path:
    """Where a step's lines go."""
    return subject.out / "logs" / f"{step.folder.replace('/', '-')}.txt"


def _key(settings: Mapping[str, Any]) -> str:
    return hash_of_json(json.loads(json.dumps(settings)))


def _record(subject: Subject, folder: str) -> Path:
    return subject.out / "done" / f"{folder.replace('/', '-')}.json"


def _cell(subject: Subject, cell: Cell) -> Path:
    return subject.out / "cells" / f"{cell.name}.json"
