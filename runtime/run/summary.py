"""What a run says of its metrics: summary.json for the tables and trials.json for each trial."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_bytes, write_json
from ..leaks import labelled
from ..metrics import METRICS
from ..metrics.compare import differences, mean, summarise
from ..metrics.measuring import Values
from .batches import Outcome
from .concepts import DecodedConcepts, concepts_line
from .controls import CONTROLS, OF_STAGE_2
from .measure import FLOOR, Measured

SUMMARY_VERSION = 2


def write_summary(  # noqa: PLR0913 (what a run says; all but three have a default)
    run: Path,
    outcome: Outcome,
    measured: Measured,
    *,
    seed: int,
    simulated: bool = False,
    notes: Sequence[str] = (),
    trial_ids: Mapping[int, str] | None = None,
    concepts: DecodedConcepts | None = None,
    leaks: Sequence[str] = (),
    extractors: Mapping[str, Mapping[str, str]] | None = None,
    decoded: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write summary.json and trials.json.

    Means are over pictures: a picture that several trials showed counts once, with the mean of its trials, and
    intervals draw pictures.

    Parameters
    ----------
    run
        The run folder.
    outcome
        What `run_batch` returned.
    measured
        What `measure_run` returned; empty where it is not known what was shown, and then there are no metrics.
    seed
        Of the bootstrap.
    simulated
        Whether the subject was simulated.
    notes
        Lines for the report beside those of `measured`.
    trial_ids
        Trial to id, where ids are more than the trials' numbers.
    concepts
        Of the outcome's trials, where contexts are found by way of concepts.
    leaks
        Those that the decoders were fitted with on purpose.
    extractors
        Of each that has weights of its own: the files' names and SHA-256.
    decoded
        What `measure_decoded` returned.

    Returns
    -------
    The content of summary.json.

    Raises
    ------
    FileError
        The files cannot be written.
    """
    values, ids = measured.values, trial_ids or {}
    contexts = None if concepts is None else concepts.summary(seed)
    one = values.get("stage1", {})
    content = {
        "format": "minddiffuser-run",
        "version": SUMMARY_VERSION,
        "n_trials": len(outcome.trials),
        "n_measured": len(measured.trials),
        "n_pictures": len(set(measured.stimulus_ids)),
        "simulated": simulated,
        **labelled(leaks),
        "skipped": [
            {"trial": trial, **_id(ids, trial), "reason": reason} for trial, reason in sorted(outcome.skipped.items())
        ],
        "failed": [{**failure, **_id(ids, failure["trial"])} for failure in outcome.failures()],
        "metrics": table(measured, seed),
        "controls": {
            kind: summarise(one, values[kind], np.random.default_rng(seed), stimulus_ids=measured.stimulus_ids)
            for kind in OF_STAGE_2
            if kind in values
        },
        **({} if contexts is None else {"concepts": contexts}),
        **({"decoded": dict(decoded)} if decoded else {}),
        **({"extractors": {name: dict(files) for name, files in extractors.items()}} if extractors else {}),
        "notes": [
            *([] if contexts is None else [f"In this run {concepts_line(contexts)}"]),
            *notes,
            *measured.notes,
        ],
        "seconds": {phase: round(spent, 3) for phase, spent in outcome.seconds.items()},
    }
    rows = [{**row, **_id(ids, row["trial"])} for row in _rows(outcome.trials, measured)]
    rows = [{**row, **_nearest(outcome, row["trial"])} for row in rows]
    if concepts is not None:
        rows = [{**row, "concept": found} for row, found in zip(rows, concepts.rows(), strict=True)]
    write_bytes(run / "trials.json", (json.dumps(rows, indent=1) + "\n").encode())
    write_json(run / "summary.json", content)
    return content


def table(measured: Measured, seed: int) -> dict[str, dict[str, Any]]:
    """The rows of summary.json, metric by metric; what a run does not have is null.

    "difference" is stage 2 minus stage 1. "decoded_minus_shuffled" is stage 2 with the trial's own decoded target minus
    stage 2 with that of another picture's trial: both begin with the same stage 1, so it is what the target is worth,
    apart from refinement as such. "stage1_minus_floor" is the same of stage 1.
    """
    values, ids = measured.values, measured.stimulus_ids
    one, two, floor, shuffled = (values.get(kind) for kind in ("stage1", "stage2", FLOOR, "shuffled"))

    def paired(first: Values | None, second: Values | None) -> Mapping[str, Any]:
        # Every contrast takes the same resamples of pictures.
        if first is None or second is None:
            return {}
        return differences(first, second, np.random.default_rng(seed), stimulus_ids=ids)

    gains, worth, above = paired(one, two), paired(shuffled, two), paired(floor, one)
    n_pictures = len(set(ids))
    return {
        name: {
            "better": METRICS[name].better,
            "n_pictures": n_pictures,
            "stage1": mean(first, ids),
            "stage1_floor": None if floor is None else mean(floor[name], ids),
            "stage1_minus_floor": above.get(name),
            "stage2": None if two is None else mean(two[name], ids),
            **gains.get(name, {"difference": None, "ci95": None}),
            "decoded_minus_shuffled": worth.get(name),
        }
        for name, first in (one or {}).items()
    }


def _rows(trials: Sequence[int], measured: Measured) -> list[dict[str, Any]]:
    """Each trial's metrics as [stage 1, stage 2], and those of its controls."""
    row_of = {trial: row for row, trial in enumerate(measured.trials)}
    return [_row(trial, row_of.get(trial), measured) for trial in trials]


def _id(ids: Mapping[int, str], trial: int) -> dict[str, str]:
    return {"id": ids[trial]} if trial in ids else {}


def _nearest(outcome: Outcome, trial: int) -> dict[str, Any]:
    return {"nearest": outcome.nearest[trial]} if trial in outcome.nearest else {}


def _row(trial: int, row: int | None, measured: Measured) -> dict[str, Any]:
    if row is None:
        return {"trial": trial, "stimulus": False, "metrics": {}}
    one, two = measured.values.get("stage1", {}), measured.values.get("stage2")
    return {
        "trial": trial,
        "stimulus": bool(one),
        "stimulus_id": measured.stimulus_ids[row],
        "metrics": {n: [float(one[n][row]), None if two is None else float(two[n][row])] for n in one},
        "controls": {
            kind: {name: float(values[row]) for name, values in measured.values[kind].items()}
            for kind in CONTROLS
            if kind in measured.values
        },
    }
