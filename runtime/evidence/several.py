"""Evidence over several runs, by group: single trials beside averages, one split beside another, with their seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..metrics.compare import MIN_PICTURES
from ..report.words import caveat_of
from .bootstrap import aligned, of_runs, over_seeds
from .lines import line_of
from .one_run import VERSION, read_evidence
from .rungs import RUNGS

FEW_SEEDS = 5
_ALIKE = ("trials", "split", "stage", "models", "simulated", "brain")
Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of a group: its folder as the user gave it, and its evidence.json."""

    folder: Path
    content: Mapping[str, Any]

    @property
    def about(self) -> Mapping[str, Any]:
        about: Mapping[str, Any] = self.content["about"]
        return about


def read_groups(labelled: Sequence[tuple[str, Path]], folders: Sequence[Path]) -> dict[str, list[Run]]:
    """Read runs, and put together those of one label; those without are known by their trials and their split.

    Raises
    ------
    InputError
        No run, or one run twice, be it as a copy.
    FileError
        As :func:`.one_run.read_evidence`.
    """
    if not labelled and not folders:
        raise InputError("no run was given: give run folders of md-reconstruct run, or --label NAME=RUN")
    groups: dict[str, list[Run]] = {}
    seen: dict[Path, Path] = {}
    for label, folder in (*labelled, *((None, folder) for folder in folders)):
        place = folder.resolve()
        if place in seen:
            raise InputError(f"{folder} was given twice: give each run once, a copy counts as another seed")
        seen[place] = folder
        run = Run(folder=folder, content=read_evidence(folder))
        group = groups.setdefault(recognised(run.about) if label is None else label, [])
        for other in group:
            if _same(run, other):
                raise InputError(
                    f"{folder} holds what {other.folder} holds, number by number: give one of them, a copy counts as "
                    "another seed"
                )
        group.append(run)
    return groups


def _same(one: Run, other: Run) -> bool:
    """Whether two folders have the same run: of one checkpoint and seed, with equal values."""
    return all(one.about.get(name) == other.about.get(name) for name in ("checkpoint", "seed")) and (
        one.content["values"] == other.content["values"]
    )


def recognised(about: Mapping[str, Any]) -> str:
    """The group of a run by what it says of itself."""
    trials = about.get("trials")
    words = [{"single": "single trials", "averaged": "averaged trials"}.get(str(trials), "trials")]
    words += ["stage 1 only"] if about.get("stage") == 1 else []
    without = about.get("without")
    words += [f"without {' and '.join(map(str, without))}"] if isinstance(without, list) and without else []
    words += ["held-out clusters"] if split_kind(about) == "clusters" else []
    return ", ".join(words)


def split_kind(about: Mapping[str, Any]) -> str | None:
    """What decided which pictures were trained on; None where the data's own split did."""
    split = about.get("split")
    kind = split.get("kind") if isinstance(split, Mapping) else None
    return kind if isinstance(kind, str) else None


def card_of(groups: Mapping[str, Sequence[Run]], *, seed: int = 0) -> dict[str, Any]:
    """The card of groups of runs, as JSON.

    Parameters
    ----------
    groups : label -> runs
    seed
        Of the bootstrap.

    Returns
    -------
    dict
        Of each group a part that is laid out as evidence.json, where "ci95" is over pictures and "ci95_seeds" over
        seeds and pictures.
    """
    return {
        "format": "minddiffuser-card",
        "version": VERSION,
        "groups": [{"label": label, **_group(runs, seed)} for label, runs in groups.items()],
    }


def _group(runs: Sequence[Run], seed: int) -> dict[str, Any]:
    notes, metrics = _notes(runs), dict[str, Any]()
    for metric in dict.fromkeys(name for run in runs for name in run.content["values"]):
        having = [run for run in runs if metric in run.content["values"]]
        if len(having) < len(runs):
            notes.append(f"{metric} was measured in {len(having)} of {len(runs)} runs, and is left out.")
            continue
        metrics[metric] = _line(metric, runs, seed)
    made = {name for line in metrics.values() for name in line["rungs"]}
    return {
        "about": _about(runs),
        "runs": [{"run": run.folder.as_posix(), **run.about} for run in runs],
        "rungs": [
            {"name": r.name, "label": r.label, "meaning": r.meaning, "missing": _why_missing(r.name, runs, made)}
            for r in RUNGS
        ],
        "metrics": metrics,
        "notes": notes,
    }


def _line(metric: str, runs: Sequence[Run], seed: int) -> dict[str, Any]:
    of_each = [run.content["values"][metric] for run in runs]
    names = [rung.name for rung in RUNGS if all(rung.name in values for values in of_each)]
    stacks = [np.array([values[name] for name in names], np.float64) for values in of_each]
    draws: dict[str, Float64] = {}
    if min(stack.shape[1] for stack in stacks) >= MIN_PICTURES:
        every = aligned([(run.content["pictures"], stack) for run, stack in zip(runs, stacks, strict=True)])
        draws[""] = of_runs(every, seed)
        if len(runs) > 1:
            draws["_seeds"] = over_seeds(every, seed)
    means = np.mean([stack.mean(axis=1) for stack in stacks], axis=0)
    known = runs[0].content["metrics"][metric]
    line = line_of(names, means, draws, label=known["label"], better=known["better"], meaning=known.get("meaning", ""))
    each = [stack.mean(axis=1).tolist() for stack in stacks]
    return {**line, "of_each_run": {name: [row[number] for row in each] for number, name in enumerate(names)}}


def _why_missing(name: str, runs: Sequence[Run], made: set[str]) -> str | None:
    if name in made:
        return None
    for run in runs:
        for rung in run.content["rungs"]:
            if rung["name"] == name and rung.get("missing"):
                where = f" (in {run.folder})" if len(runs) > 1 else ""
                return f"{rung['missing']}{where}"
    return "it was not measured in every run"


def _about(runs: Sequence[Run]) -> dict[str, Any]:
    """What all runs of a group have in common, and how many they are."""
    common = {
        name: value
        for name, value in runs[0].about.items()
        if all(run.about.get(name) == value for run in runs) and name != "bootstrap_seed"
    }
    subjects = list(dict.fromkeys(str(run.about.get("subject")) for run in runs))
    n_trials = sum(int(run.about.get("n_trials") or 0) for run in runs)
    return {**common, "subjects": subjects, "n_runs": len(runs), "n_trials": n_trials}


def _notes(runs: Sequence[Run]) -> list[str]:
    notes = []
    if len(runs) == 1:
        notes.append("This is one run: there is no interval over seeds.")
    else:
        few = f"; {len(runs)} are few, and such an interval is too narrow" if len(runs) < FEW_SEEDS else ""
        notes.append(f"Intervals over seeds draw the {len(runs)} runs too: {_pictures_in_common(runs)}{few}.")
    mixed = _differing(runs)
    if mixed:
        notes.append(f"These runs differ in {', '.join(mixed)}: is it one group?")
    leaky = sorted({leak for run in runs for leak in run.about.get("leaks") or ()})
    notes += dict.fromkeys(caveat for run in runs if (caveat := caveat_of(run.about)))
    if leaky:
        notes.append(f"Some were fitted with a leak on purpose ({', '.join(leaky)}): this is no evidence of decoding.")
    return notes


def _pictures_in_common(runs: Sequence[Run]) -> str:
    """How pictures are drawn for runs that have all of them in common, some or none."""
    of_each = [set(run.content["pictures"]) for run in runs]
    if all(one == of_each[0] for one in of_each):
        return "they have the same pictures, which are drawn for all of them at once"
    if len(set().union(*of_each)) == sum(map(len, of_each)):
        return "no two of them have a picture in common, and each has its own drawn"
    return "not all of them have the same pictures, and each is drawn for all runs that have it at once"


def _differing(runs: Sequence[Run]) -> list[str]:
    """What runs of one group should have in common and have not: seeds and subjects are all that may differ."""
    described = [
        {name: run.about.get(name) for name in _ALIKE} | _flat(run.about.get("settings"), "settings") for run in runs
    ]
    names = dict.fromkeys(name for one in described for name in one)
    return [name for name in names if len({repr(one.get(name)) for one in described}) > 1]


def _flat(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    return {key: v for part, inner in value.items() for key, v in _flat(inner, f"{name}.{part}").items()}
