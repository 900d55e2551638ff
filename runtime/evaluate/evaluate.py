"""Pictures scored against stimuli: values, intervals, and permutation tests of the pairing and between methods."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..environment import versions
from ..errors import InputError
from ..files import hash_of_json
from ..metrics import METRICS, Metric
from ..metrics.base import Array, FloatArray
from ..metrics.compare import differences
from ..metrics.extractors import Features
from ..metrics.measuring import Pairs, measure_pairs
from ..metrics.permutation import N_PERMUTATIONS, groups_of, mean_of_others, pairing_test, sign_flip_test
from ..metrics.select import STANDARD, select
from ..metrics.statistics import N_RESAMPLES, picture_means
from ..progress import unheard
from ..run.measure import KEPT, defined, open_extractors
from .gather import Gathered, Row, gather
from .given import Networks, given_for

OnPhase = Callable[[str, int, int], None]

VERSION = 1
FORMAT = "minddiffuser-evaluation"
FIRST, NONE = "FIRST", "none"
_LIBRARIES = ("minddiffuser", "numpy", "pillow", "safetensors", "torch", "torchvision", "open_clip_torch")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How pictures are scored.

    Attributes
    ----------
    metrics
        Of :func:`~minddiffuser.runtime.metrics.select.select`.
    by_order, allow_missing
        See :func:`.gather.gather`.
    against
        Name of the row that the others are compared with; `FIRST` or `NONE`.
    seed
        Of the intervals and permutations; None: the run's, where run folders alone are scored, else 0.
    n_permutations
        The most that are taken; 0: no test.
    networks
        What metrics need besides pictures.
    """

    metrics: tuple[Metric, ...] = field(default_factory=select)
    by_order: bool = False
    allow_missing: bool = False
    against: str = FIRST
    seed: int | None = None
    n_permutations: int = N_PERMUTATIONS
    networks: Networks = field(default_factory=Networks)

    def __post_init__(self) -> None:
        if self.seed is not None and self.seed < 0:
            raise InputError(f"the seed is {self.seed}: give 0 or a positive whole number")
        if self.n_permutations < 0:
            raise InputError(f"{self.n_permutations} permutations were asked for: give 0 or more")


def evaluate(
    paths: Sequence[Path],
    stimuli: Path | None = None,
    settings: EvaluateSettings | None = None,
    *,
    kept: Path | None = None,
    on_progress: OnPhase = unheard,
) -> dict[str, Any]:
    """Score folders of pictures.

    Parameters
    ----------
    paths, stimuli
        See :func:`.gather.gather`.
    settings
        None: the defaults.
    kept
        A folder in which what is measured is kept, so that it is not measured again; None: nothing is.
    on_progress
        Called with a phase, and how many of how many of its steps are done.

    Returns
    -------
    The content of evaluation.json; see docs/evaluate.md.

    Raises
    ------
    MindDiffuserError
        Anything that the user can fix.
    """
    settings = settings or EvaluateSettings()
    with ExitStack() as stack:
        gathered = gather(
            paths,
            stimuli,
            stack,
            by_order=settings.by_order,
            allow_missing=settings.allow_missing,
            on_progress=partial(on_progress, "reading pictures"),
        )
        against = _against(settings.against, gathered.rows)
        on_progress("opening networks", 0, 1)
        opened, missing = open_extractors(given_for(settings.metrics, settings.networks, gathered), settings.metrics)
        on_progress("opening networks", 1, 1)
        n_pictures = len(set(gathered.ids))
        metrics, undefined = defined(_in_order(settings.metrics), opened, n_pictures)
        if not metrics:
            raise InputError(f"no metric can be computed: {' '.join((*missing, *undefined))}")
        seed = _seed(settings.seed, gathered)
        folder = kept or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # What a run has measured is not measured again.
        if len(gathered.runs) == 1 and not (folder / KEPT).exists():
            _copy(gathered.runs[0].folder / KEPT, folder / KEPT)
        sets = _sets(gathered, seed, settings.n_permutations)
        found = measure_pairs(
            metrics,
            opened,
            sets,
            folder / KEPT,
            on_progress=partial(on_progress, "measuring pictures"),
            on_exchange=partial(on_progress, "comparing with other stimuli"),
        )
    shown = [metric for metric in metrics if metric.name in found.values[gathered.rows[0].name]]
    means = {name: _means(values, sets[name].ids) for name, values in found.values.items()}
    names = tuple(dict.fromkeys(gathered.ids))
    return {
        "format": FORMAT,
        "version": VERSION,
        "finished": True,
        "seed": seed,
        "n_resamples": N_RESAMPLES,
        "n_permutations": settings.n_permutations,
        "versions": versions(_LIBRARIES),
        "stimuli": {"where": gathered.where, "n": n_pictures, "hash": hash_of_json(list(names))},
        "metrics": {metric.name: _described(metric, opened[metric.needs]) for metric in shown},
        "rows": [
            {
                "name": row.name,
                "where": row.where,
                "n_pictures": n_pictures,
                "n_images": len(row.entries),
                "images_per_stimulus": list(row.samples),
                "metrics": _scores(shown, means[row.name], found.crossed[row.name], seed, settings.n_permutations),
            }
            for row in gathered.rows
        ],
        "differences": [
            {
                "first": against,
                "second": row.name,
                "metrics": _differences(shown, means[against], means[row.name], seed, settings.n_permutations),
            }
            for row in gathered.rows
            if against is not None and row.name != against
        ],
        "per_picture": {
            "stimuli": _names_of(gathered),
            "values": {name: {m: v.tolist() for m, v in of_row.items()} for name, of_row in means.items()},
        },
        "left_out": list(gathered.left_out),
        "notes": [*gathered.notes, *_notes_on(gathered), *missing, *undefined, *found.notes],
    }


def _sets(gathered: Gathered, seed: int, n_permutations: int) -> dict[str, Pairs]:
    """The pairs of each row; every row's pictures exchange their stimuli within the same groups."""
    n = len(set(gathered.ids))
    groups = groups_of(n, np.random.default_rng([seed, n])) if n_permutations and n > 1 else ()
    return {
        row.name: Pairs(
            pairs=[(gathered.stimuli[stimulus].sources[0], source) for stimulus, source in row.entries],
            ids=[gathered.ids[stimulus] for stimulus, _ in row.entries],
            rows=[stimulus for stimulus, _ in row.entries],
            groups=groups,
        )
        for row in gathered.rows
    }


def _in_order(metrics: Sequence[Metric]) -> list[Metric]:
    """The standard ones in the order of published tables, then the others as they are registered."""
    order = [*STANDARD, *(name for name in METRICS if name not in STANDARD)]
    return sorted(metrics, key=lambda metric: order.index(metric.name))


def _means(values: Mapping[str, Array], ids: Sequence[str]) -> dict[str, FloatArray]:
    return {name: picture_means(of_metric, ids) for name, of_metric in values.items()}


def _scores(
    metrics: Sequence[Metric],
    means: Mapping[str, FloatArray],
    crossed: Mapping[str, Sequence[FloatArray]],
    seed: int,
    n_permutations: int,
) -> dict[str, Any]:
    """Each metric's mean, its interval, and whether it is better than with other stimuli."""
    zeros = {name: np.zeros_like(values) for name, values in means.items()}
    intervals = differences(zeros, means, np.random.default_rng(seed))
    found = {}
    for metric in metrics:
        row: dict[str, Any] = {
            "value": float(means[metric.name].mean()),
            "ci95": intervals[metric.name]["ci95"],
            "other_stimuli": None,
            "p_value": None,
        }
        if crossed:
            matrices = crossed[metric.name]
            test = pairing_test(
                matrices, np.random.default_rng(seed), better=metric.better, n_permutations=n_permutations
            )
            row |= {
                "other_stimuli": mean_of_others(matrices),
                "p_value": test.p_value,
                "n_permutations": test.n_permutations,
                "exact": test.exact,
            }
        found[metric.name] = row
    return found


def _differences(
    metrics: Sequence[Metric],
    first: Mapping[str, FloatArray],
    second: Mapping[str, FloatArray],
    seed: int,
    n_permutations: int,
) -> dict[str, Any]:
    """Second minus first on the same stimuli, with interval and p-value."""
    changes = differences(first, second, np.random.default_rng(seed))
    found = {}
    for metric in metrics:
        row: dict[str, Any] = {**changes[metric.name], "p_value": None}
        # Of a metric that depends on the other reconstructions, values are no pictures that could be exchanged.
        if n_permutations and not metric.compares_reconstructions:
            test = sign_flip_test(
                second[metric.name] - first[metric.name], np.random.default_rng(seed), n_permutations=n_permutations
            )
            row |= {"p_value": test.p_value, "n_permutations": test.n_permutations, "exact": test.exact}
        found[metric.name] = row
    return found


def _described(metric: Metric, features: Features) -> dict[str, Any]:
    return {
        "label": metric.label,
        "meaning": metric.meaning,
        "better": metric.better,
        "rate": metric.compares_pictures and metric.range == (0, 1),
        "extractor": metric.needs,
        "computed": features.identity,
        "weights": dict(features.weights),
    }


def _against(asked: str, rows: Sequence[Row]) -> str | None:
    names = [row.name for row in rows]
    if asked == NONE:
        return None
    if asked == FIRST:
        return names[0]
    if asked not in names:
        raise InputError(f"--against {asked} is none of what is scored: choose among {', '.join(names)}, or none")
    return asked


def _seed(asked: int | None, gathered: Gathered) -> int:
    if asked is not None:
        return asked
    seeds = {run.seed for run in gathered.runs}
    own = seeds.pop() if len(seeds) == 1 else None
    return 0 if own is None else own


def _names_of(gathered: Gathered) -> list[str]:
    """A name of each different stimulus: of its first appearance."""
    names: dict[str, str] = {}
    for item, content in zip(gathered.stimuli, gathered.ids, strict=True):
        names.setdefault(content, item.name)
    return list(names.values())


def _notes_on(gathered: Gathered) -> list[str]:
    notes = []
    if len(set(gathered.ids)) < len(gathered.ids):
        notes.append(
            f"{len(gathered.ids)} stimuli are {len(set(gathered.ids))} different pictures: each counts once, with the "
            "mean of what belongs to it."
        )
    for row in gathered.rows:
        fewest, most = row.samples
        if most > 1:
            counts = f"{most}" if fewest == most else f"{fewest} to {most}"
            notes.append(f"{row.name} has {counts} pictures of each stimulus, whose values are averaged.")
    return notes


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        shutil.copyfile(source, target)
