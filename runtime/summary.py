"""A run's figures: every metric of every picture, summary.json for the table and trials.json for each trial."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batch.run import Outcome
from .files import write_bytes, write_json
from .images import read_image, to_float
from .metrics import METRICS
from .metrics.compare import per_trial, summarise

SUMMARY_VERSION = 1
# Pictures are measured so many at a time: a thousand of 512 px would not fit a laptop's memory as float32.
_BLOCK = 32

Images = NDArray[np.float32]
Values = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is needed beyond the pictures themselves; each left out leaves its metric out.

    Attributes
    ----------
    embed
        Images (n, 3, H, W) in [0, 1] -> CLIP embeddings (n, d), for "clip_two_way".
    classify
        Images -> concept labels (n,) int64, for "concept_top1".
    labels
        True concept label of each trial in the order of the run's good trials, (n,) int64.
    """

    embed: Callable[[Images], NDArray[Any]] | None = None
    classify: Callable[[Images], NDArray[np.int64]] | None = None
    labels: NDArray[np.int64] | None = None


def measure_run(run: Path, outcome: Outcome, measures: Measures) -> dict[str, Values]:
    """Measure every kind of picture of a finished run against what was seen (stimuli/ in the run folder).

    Returns
    -------
    kind ("stage1", "stage2", "shuffled", "oracle", those there are) -> metric -> (n,) float64

    Raises
    ------
    FileError
        A picture has gone or is damaged.
    """
    kinds = [kind for kind in ("stage1", "stage2", "shuffled", "oracle") if (run / "images" / kind).is_dir()]
    return {kind: measure(run, kind, outcome.trials, measures) for kind in kinds}


def write_summary(
    run: Path,
    outcome: Outcome,
    values: Mapping[str, Values],
    *,
    seed: int,
    notes: Sequence[str] = (),
    trial_ids: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """Write summary.json and trials.json.

    Parameters
    ----------
    run
        The run folder.
    outcome
        What `run_batch` returned.
    values
        What `measure_run` returned; empty where it is not known what was seen, and then there are no metrics.
    seed
        Of the bootstrap.
    notes
        Why a metric is left out, and warnings.
    trial_ids
        Trial to id, where ids are more than the trials' numbers.

    Returns
    -------
    The content of summary.json.

    Raises
    ------
    FileError
        The files cannot be written.
    """
    one, two = values.get("stage1", {}), values.get("stage2")
    ids = trial_ids or {}
    content = {
        "format": "minddiffuser-run",
        "version": SUMMARY_VERSION,
        "n_trials": len(outcome.trials),
        "skipped": [
            {"trial": trial, **_id(ids, trial), "reason": reason} for trial, reason in sorted(outcome.skipped.items())
        ],
        "failed": outcome.failures(),
        "metrics": table(one, two, seed),
        "controls": {kind: table(one, values[kind], seed) for kind in ("shuffled", "oracle") if kind in values},
        "notes": list(notes),
        "seconds": {phase: round(spent, 3) for phase, spent in outcome.seconds.items()},
    }
    write_bytes(run / "trials.json", (json.dumps(_rows(outcome.trials, ids, one, two), indent=1) + "\n").encode())
    write_json(run / "summary.json", content)
    return content


def measure(run: Path, kind: str, trials: Sequence[int], measures: Measures) -> Values:
    """Every metric of one kind of picture against the stimuli, (n,) float64 each."""
    blocks: list[Values] = []
    truth, found = [], []
    for start, stimuli, pictures in _blocks(run, kind, trials):
        labels = None if measures.labels is None else measures.labels[start : start + len(stimuli)]
        blocks.append(per_trial(stimuli, pictures, classify=measures.classify, labels=labels))
        if measures.embed is not None:
            truth.append(np.asarray(measures.embed(stimuli)))
            found.append(np.asarray(measures.embed(pictures)))
    values = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    for name, metric in METRICS.items():
        if metric.needs == "clip" and measures.embed is not None and len(trials) >= metric.min_trials:
            values[name] = metric.function(np.concatenate(truth), np.concatenate(found))
    return {name: values[name] for name in METRICS if name in values}


def table(stage1: Values, stage2: Values | None, seed: int) -> dict[str, Any]:
    """The rows of summary.json; a run of stage 1 alone has nulls for the rest."""
    if stage2 is None:
        return {
            name: {"stage1": float(np.mean(one)), "stage2": None, "difference": None, "ci95": None}
            for name, one in stage1.items()
        }
    return {name: dict(row) for name, row in summarise(stage1, stage2, np.random.default_rng(seed)).items()}


def caption_labels(captions: Sequence[Sequence[str]], words: Sequence[str]) -> NDArray[np.int64] | None:
    """The index of the one word of `words` that each trial's captions name, or None where a trial is not so clear."""
    labels = []
    for texts in captions:
        spoken = " ".join(texts).lower()
        named = [i for i, word in enumerate(words) if re.search(rf"(?<!\w){re.escape(word.lower())}(?!\w)", spoken)]
        if len(named) != 1:
            return None
        labels.append(named[0])
    return np.asarray(labels, dtype=np.int64) if labels else None


def _blocks(run: Path, kind: str, trials: Sequence[int]) -> Iterator[tuple[int, Images, Images]]:
    for start in range(0, len(trials), _BLOCK):
        names = [f"{trial:06d}.png" for trial in trials[start : start + _BLOCK]]
        stimuli = to_float(np.stack([read_image(run / "stimuli" / name) for name in names]))
        yield start, stimuli, to_float(np.stack([read_image(run / "images" / kind / name) for name in names]))


def _id(ids: Mapping[int, str], trial: int) -> dict[str, str]:
    return {"id": ids[trial]} if trial in ids else {}


def _rows(trials: Sequence[int], ids: Mapping[int, str], one: Values, two: Values | None) -> list[dict[str, Any]]:
    return [
        {
            "trial": trial,
            **_id(ids, trial),
            "stimulus": bool(one),
            "metrics": {n: [float(one[n][row]), None if two is None else float(two[n][row])] for n in one},
        }
        for row, trial in enumerate(trials)
    ]
