"""What a run folder holds, read once for the page: settings, metrics, and each trial's pictures and curve."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from ..data.json_types import is_whole, number_or_none
from ..errors import FileError
from ..files import read_json

PICTURE_FOLDERS = {
    "stimulus": "stimuli",
    "stage1": "images/stage1",
    "stage2": "images/stage2",
    "oracle": "images/oracle",
    "shuffled": "images/shuffled",
    "nearest": "images/nearest",
    "generator": "images/generator",
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial's card.

    `pictures` maps a name of `PICTURE_FOLDERS` to a file; `metrics` maps a metric's name to its two values
    (stage 1, stage 2), None where there is none. `candidates` are the losses of the pictures among which one was
    chosen, None where one was not finite; `finish` those of the steps that finished it. `failed` says that a refinement
    diverged. `name` is the trial's id where that is more than its number. `concept` is what trials.json says of the
    decoded concept; empty where contexts are decoded directly.
    """

    number: int
    pictures: Mapping[str, Path]
    loss: tuple[float, ...] = ()
    best_step: int | None = None
    candidates: tuple[float | None, ...] = ()
    finish: tuple[float, ...] = ()
    failed: bool = False
    metrics: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    name: str | None = None
    concept: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunContents:
    """A run folder as the page shows it; `settings`, `summary` and `evidence` are empty where files are missing."""

    settings: Mapping[str, Any]
    summary: Mapping[str, Any]
    trials: tuple[Trial, ...]
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pictures(self) -> tuple[str, ...]:
        """The kinds of picture that at least one trial has, in the page's order."""
        return tuple(name for name in PICTURE_FOLDERS if any(name in trial.pictures for trial in self.trials))


def read_run(run: Path) -> RunContents:
    """Read a run folder, finished or not.

    Raises
    ------
    FileError
        The folder is missing, holds no reconstructed picture, or one of its JSON files is damaged.
    """
    if not run.is_dir():
        raise FileError(f"the run folder {run} does not exist: give the folder that md-reconstruct run wrote")
    stage1 = run / PICTURE_FOLDERS["stage1"]
    numbers = sorted({int(path.stem) for path in stage1.glob("*.png") if _is_trial(path)})
    if not numbers:
        raise FileError(f"{run} holds no picture in images/stage1: give a folder in which a run has finished a trial")
    rows = _trial_rows(run / "trials.json")
    return RunContents(
        settings=_optional(run / "settings.json", "the run's settings"),
        summary=_optional(run / "summary.json", "the run's summary"),
        trials=tuple(_trial(run, number, rows.get(number, {})) for number in numbers),
        evidence=_optional(run / "evidence.json", "the run's evidence"),
    )


def is_count(value: object) -> TypeGuard[int]:
    """Whether a JSON value is a whole number from 0 on, and not true or false."""
    return is_whole(value) and value >= 0


def mapping_or_empty(value: object) -> Mapping[str, Any]:
    """`value` where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def _is_trial(path: Path) -> bool:
    stem = path.stem
    return stem.isascii() and stem.isdecimal() and stem == f"{int(stem):06d}"


def _optional(path: Path, what: str) -> dict[str, Any]:
    return read_json(path, what) if path.exists() else {}


def _trial(run: Path, number: int, row: Mapping[str, Any]) -> Trial:
    """One trial's files, and its row of trials.json."""
    name = f"{number:06d}.png"
    pictures = {
        kind: run / folder / name for kind, folder in PICTURE_FOLDERS.items() if (run / folder / name).is_file()
    }
    curve = _optional(run / "curves" / f"{number:06d}.json", "a loss curve")
    loss = curve.get("loss")
    values = [number_or_none(value) for value in loss] if isinstance(loss, list) else []
    best, candidates, finish = curve.get("best_step"), curve.get("candidates"), curve.get("finish")
    finishing = [number_or_none(value) for value in finish] if isinstance(finish, list) else []
    return Trial(
        number=number,
        pictures=pictures,
        loss=tuple(value for value in values if value is not None) if None not in values else (),
        best_step=best if is_count(best) and best < len(values) else None,
        candidates=tuple(map(number_or_none, candidates)) if isinstance(candidates, list) else (),
        finish=tuple(value for value in finishing if value is not None) if None not in finishing else (),
        failed=curve.get("failed") is True,
        metrics={
            name: (number_or_none(pair[0]), number_or_none(pair[1]))
            for name, pair in mapping_or_empty(row.get("metrics")).items()
            if isinstance(pair, list) and len(pair) == 2
        },
        name=row["id"] if isinstance(row.get("id"), str) else None,
        concept=mapping_or_empty(row.get("concept")),
    )


def _trial_rows(path: Path) -> dict[int, Mapping[str, Any]]:
    """What trials.json says of each trial."""
    if not path.exists():
        return {}
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} cannot be read ({error}): it is damaged, run md-reconstruct run again") from error
    found: dict[int, Mapping[str, Any]] = {}
    for row in rows if isinstance(rows, list) else [rows]:
        trial = mapping_or_empty(row).get("trial")
        if not is_count(trial):
            raise FileError(f"{path} has an entry without a trial number: run md-reconstruct run again to rewrite it")
        found[trial] = row
    return found
