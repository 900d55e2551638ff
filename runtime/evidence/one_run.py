"""RUN/evidence.json: each metric of a run on its line, and the values by picture from which runs are put together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError
from ..files import check_format, read_json, write_json
from ..leaks import FIELD as LEAKS
from ..metrics import METRICS
from ..metrics.compare import MIN_PICTURES
from ..metrics.statistics import picture_means
from .bootstrap import over_pictures
from .lines import line_of
from .rungs import RUNGS

NAME = "evidence.json"
KIND, VERSION = "evidence", 1
SINGLE, AVERAGED = "single", "averaged"
_SHOWING, _MEAN = re.compile(r".+/\d+"), re.compile(r".+/mean(-\d+)?")

Values = Mapping[str, Mapping[str, NDArray[np.float64]]]


def write_evidence(
    run: Path,
    values: Values,
    stimulus_ids: Sequence[str],
    *,
    seed: int,
    about: Mapping[str, Any],
    missing: Mapping[str, str],
) -> dict[str, Any]:
    """Write a run's evidence.json; where nothing was measured, one that an earlier call left is taken away.

    Parameters
    ----------
    run
        The run folder.
    values : kind of picture -> metric -> (n_trials,)
        As :class:`~minddiffuser.runtime.run.measure.Measured` has them.
    stimulus_ids
        Of each trial, the same for trials that showed the same picture.
    seed
        Of the bootstrap.
    about
        JSON of what the run is; see :func:`about_trials`.
    missing : rung -> reason
        Of those that the run knows a reason of.

    Returns
    -------
    dict
        Its content; empty where nothing was measured.
    """
    found = {}
    for rung in RUNGS:
        kind = next((kind for kind in rung.kinds if values.get(kind)), None)
        if kind is not None:
            found[rung.name] = values[kind]
    if "stage1" not in found:
        (run / NAME).unlink(missing_ok=True)
        return {}
    metrics = list(found["stage1"])
    by_picture = {
        metric: {name: picture_means(those[metric], stimulus_ids) for name, those in found.items()}
        for metric in metrics
    }
    pictures = list(dict.fromkeys(stimulus_ids))
    content = {
        "format": f"minddiffuser-{KIND}",
        "version": VERSION,
        "about": {**about, "n_trials": len(stimulus_ids), "n_pictures": len(pictures), "bootstrap_seed": seed},
        "rungs": [
            {
                "name": rung.name,
                "label": rung.label,
                "meaning": rung.meaning,
                "missing": None if rung.name in found else missing.get(rung.name, rung.absent),
            }
            for rung in RUNGS
        ],
        "metrics": {metric: _line(metric, those, seed) for metric, those in by_picture.items()},
        "pictures": pictures,
        "values": {metric: {name: row.tolist() for name, row in those.items()} for metric, those in by_picture.items()},
    }
    write_json(run / NAME, content)
    return content


def _line(metric: str, by_rung: Mapping[str, NDArray[np.float64]], seed: int) -> dict[str, Any]:
    stacked = np.stack(list(by_rung.values()))
    draws = {"": over_pictures(stacked, seed)} if stacked.shape[1] >= MIN_PICTURES else {}
    known = METRICS[metric]
    return line_of(
        list(by_rung), stacked.mean(axis=1), draws, label=known.label, better=known.better, meaning=known.meaning
    )


def about_trials(trial_ids: Sequence[str]) -> str | None:
    """Whether trials are single showings or averages of several, as far as their ids say; None where they do not."""
    for kind, form in ((AVERAGED, _MEAN), (SINGLE, _SHOWING)):
        if trial_ids and all(form.fullmatch(name) for name in trial_ids):
            return kind
    return None


def read_evidence(run: Path) -> dict[str, Any]:
    """Read a run's evidence.json.

    Raises
    ------
    FileError
        The folder has none, or it is damaged or of another version.
    """
    path = run / NAME
    if not run.is_dir():
        raise FileError(f"the run folder {run} does not exist: give folders that md-reconstruct run wrote")
    if not path.exists():
        raise FileError(
            f"{run} has no {NAME}: its stimuli are not known, or the run is of an earlier release; give the same "
            "md-reconstruct run command again, which measures and makes nothing twice"
        )
    content = read_json(path, "the run's evidence")
    check_format(content, path, KIND, VERSION)
    try:
        _check(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{path} is damaged ({error!r:.60}): give the same md-reconstruct run command again") from error
    return content


def _check(content: Mapping[str, Any]) -> None:
    """Refuse a description without what putting runs together takes."""
    n, about = len(content["pictures"]), content["about"]
    if n == 0 or not all(isinstance(name, str) for name in content["pictures"]) or len(set(content["pictures"])) < n:
        raise ValueError("pictures")
    names = [str(rung["name"]) for rung in content["rungs"]]
    for entry in (*content["rungs"], about):
        if not isinstance(entry, dict):
            raise TypeError("an entry is no object")
    if not isinstance(about.get("n_trials"), int) or not all(isinstance(leak, str) for leak in about.get(LEAKS, [])):
        raise TypeError("about")
    for metric, by_rung in content["values"].items():
        content["metrics"][metric]["better"], content["metrics"][metric]["label"]
        if "stage1" not in by_rung:
            raise ValueError("stage1 is missing")
        for name, row in by_rung.items():
            numbers = np.asarray(row, np.float64)
            if name not in names or numbers.shape != (n,) or not np.isfinite(numbers).all():
                raise ValueError(f"{metric} of {name}")
