"""Cells that are a fit and a run of it: how they are made, and how they are measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.decoders.checkpoint import open_checkpoint
from ...runtime.errors import FileError
from ...runtime.refine.settings import PRESETS, RefineSettings
from ...runtime.run.reconstruct import ReconstructSettings
from .base import Cell, Step
from .decoding import common_mask, decoded_patterns
from .steps import Fit, Run, opened_models
from .subject import Plan, Subject
from .values import Float64, Values, by_picture, mean_of

STAGES = ("stage1", "stage2")


def run_settings(plan: Plan, refine: RefineSettings | None = None, **more: Any) -> ReconstructSettings:
    """How cells run: one guided pass, or with `plan.full` the package's default and both controls."""
    refine = PRESETS["default" if plan.full else "single"] if refine is None else refine
    controls = "both" if plan.full and more.get("stage") != 1 else "none"
    return ReconstructSettings(refine=refine, **{"controls": controls, **more})


def fit_and_run(
    name: str,
    label: str,
    fit: Fit,
    settings: ReconstructSettings,
    plan: Plan,
    *,
    common: Sequence[Fit] = (),
    decoded: bool = True,
) -> Cell:
    """A cell of one checkpoint and a run of it for each seed.

    Parameters
    ----------
    common
        Fits whose masks' intersection the structure's patterns are compared over, so that all are compared over the
        same dimensions; they are made first.
    decoded
        Whether how well features are decoded is measured too.
    """
    runs = [
        Run(
            name=f"{name}-{seed}",
            fit=fit,
            settings=replace(settings, refine=replace(settings.refine, seed=seed)),
        )
        for seed in plan.seeds
    ]
    steps: dict[str, Step] = {one.folder: one for one in (*common, fit)}
    steps |= {run.folder: run for run in runs}
    measure = Measure(fit=fit, runs=tuple(runs), common=tuple(common), decoded=decoded)
    return Cell(name=name, label=label, steps=tuple(steps.values()), measure=measure)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Reads what runs measured of their pictures, and compares what was decoded with the true features."""

    fit: Fit
    runs: tuple[Run, ...]
    common: tuple[Fit, ...] = ()
    decoded: bool = True

    def __call__(self, subject: Subject) -> Values:
        folders = [subject.out / run.folder for run in self.runs]
        found = mean_of([run_values(folder) for folder in folders])
        if not self.decoded:
            return found
        shown = {row["trial"]: row["stimulus_id"] for folder in folders for row in measured_trials(folder)}
        return _with_decoded(found, subject, shown, self.fit, self.common)


def measured_trials(run: Path) -> list[dict[str, Any]]:
    """The trials of a run that have pictures and metrics, as in its trials.json.

    Raises
    ------
    FileError
        There is none.
    """
    rows = [row for row in json.loads((run / "trials.json").read_text()) if row.get("metrics")]
    if not rows:
        raise FileError(f"the run in {run} has no metrics: its data folder must have the pictures that were shown")
    return rows


def run_values(run: Path) -> Values:
    """The metrics of a run's pictures, by picture: "METRIC.stage1", "METRIC.stage2", controls, and its concepts.

    Raises
    ------
    FileError
        The run has measured no trial.
    """
    rows = measured_trials(run)
    summary = json.loads((run / "summary.json").read_text())
    columns: dict[str, list[float]] = {}
    for metric in rows[0]["metrics"]:
        for place, stage in enumerate(STAGES):
            values = [row["metrics"][metric][place] for row in rows]
            if None not in values:
                columns[f"{metric}.{stage}"] = values
        for control in rows[0].get("controls", {}):
            columns[f"{metric}.{control}"] = [row["controls"][control][metric] for row in rows]
    # Stage 1 of another picture's trial against this one's stimulus.
    floors = {name: made.get("stage1_floor") for name, made in summary.get("metrics", {}).items()}
    chance: dict[str, float] = {name: float(floor) for name, floor in floors.items() if floor is not None}
    if all("rank" in row.get("concept", {}) for row in rows):
        columns["decoded.concept"] = [float(row["concept"]["rank"] == 1) for row in rows]
        chance["decoded.concept"] = 1 / summary["concepts"]["n_candidates"]
    made = by_picture(columns, [row["stimulus_id"] for row in rows])
    return replace(made, chance=chance)


def _with_decoded(found: Values, subject: Subject, shown: Mapping[int, str], fit: Fit, common: Sequence[Fit]) -> Values:
    """The same values with "decoded.FEATURE" beside them; `shown` has the picture of each good trial."""
    from ..features.extract import extract_features

    data, trials = subject.data, sorted(shown)
    ids = [shown[trial] for trial in trials]
    features = extract_features(data, "test", opened_models(subject.plan), cache_dir=subject.cache)
    checkpoint = open_checkpoint(subject.out / fit.folder)
    others = [open_checkpoint(subject.out / one.folder) for one in common]
    own, chance = decoded_patterns(
        checkpoint,
        np.asarray(data.responses("test")[trials], np.float32),
        _Rows(features, data.stimulus("test")[trials]),
        ids,
        trusted=common_mask([checkpoint, *others]) if others else None,
    )
    made = by_picture({f"decoded.{name}": values for name, values in own.items()}, ids)
    rows = [made.pictures.index(name) for name in found.pictures]
    columns: dict[str, Float64] = {name: array[rows] for name, array in made.columns.items()}
    levels = {f"decoded.{name}": float(values.mean()) for name, values in chance.items()}
    return replace(found, columns={**found.columns, **columns}, chance={**found.chance, **levels})


class _Rows:
    """The features of some stimuli."""

    def __init__(self, features: Any, rows: Any) -> None:
        for name in ("context", "latent", "structure", "semantic"):
            array = getattr(features, name, None)
            setattr(self, name, None if array is None else np.asarray(array[rows]))
