"""Every metric of every picture of a run, from the files in its folder; what did not change is not measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError
from ..metrics import Metric
from ..metrics.extractors import EXTRACTORS, Features, Given, Unavailable
from ..metrics.measuring import OnProgress, Pairs, Values, measure_pairs
from ..metrics.select import select
from ..metrics.sources import Pair, PictureFile
from .controls import CONTROLS, partners

KINDS = ("stage1", "stage2", *CONTROLS)
FLOOR, FLOOR_2 = "stage1_floor", "stage2_floor"
_FLOORS = {"stage1": FLOOR, "stage2": FLOOR_2}
KEPT = "measured.safetensors"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The metrics of a run.

    Attributes
    ----------
    trials
        Those that were measured, in their order.
    stimulus_ids
        Of each of them, the same for trials that showed the same picture.
    values
        Kind ("stage1", "stage2" and the controls, those there are, and "stage1_floor" and "stage2_floor": the picture
        of another picture's trial against this trial's stimulus, where there are two pictures) -> metric -> (n,)
        float64.
    notes
        What was left out, and why.
    """

    trials: tuple[int, ...] = ()
    stimulus_ids: tuple[str, ...] = ()
    values: Mapping[str, Values] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_extractors(
    given: Given, metrics: Sequence[Metric] | None = None
) -> tuple[dict[str, Features], tuple[str, ...]]:
    """Open what metrics need.

    Parameters
    ----------
    given
        What there is to work with.
    metrics
        Of :func:`~minddiffuser.runtime.metrics.select.select`; None: those that are computed by default.

    Returns
    -------
    extractor -> its features, those there are; and for each extractor that is not there, a sentence: which metrics are
    left out, and why.
    """
    wanted = select() if metrics is None else metrics
    opened: dict[str, Features] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys(metric.needs for metric in wanted):
        if name not in EXTRACTORS:
            raise InputError(f"a metric needs the extractor {name!r}: register it, there are {', '.join(EXTRACTORS)}")
        try:
            opened[name] = EXTRACTORS[name].open(given)
        except Unavailable as reason:
            missing[name] = str(reason)
    return opened, tuple(_missing(wanted, name, reason) for name, reason in missing.items())


def _missing(metrics: Sequence[Metric], extractor: str, reason: str) -> str:
    names = [metric.name for metric in metrics if metric.needs == extractor]
    return f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} left out: {reason}."


def measure_run(
    run: Path,
    trials: Sequence[int],
    extractors: Mapping[str, Features],
    *,
    metrics: Sequence[Metric] | None = None,
    stimulus_ids: Sequence[str] | None = None,
    trial_ids: Sequence[str] | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Measured:
    """Measure every kind of picture of a finished run against what was shown (stimuli/ in the run folder).

    Trials that lack a picture are left out and named in a note. What was measured is kept in the run folder, by the
    hashes of the pictures and of what measures them, also where measuring is stopped.

    Parameters
    ----------
    run
        The run folder.
    trials
        The run's good trials.
    extractors
        Of :func:`open_extractors`; where one knows what is true of each trial, its rows belong to `trials`.
    metrics
        Those that the extractors were opened for; None: those that are computed by default.
    stimulus_ids
        Of each of `trials`, the same for those that showed the same picture; None: each showed another one.
    trial_ids
        By trial number; see :func:`~.controls.partners`.
    seed
        Decides whose stage 1 is each trial's floor: that of the trial whose target is its shuffled one, where every
        good trial has a picture; else they are shuffled anew among those that have one.
    on_progress
        Called with the number of finished measurements and of those to be made now.

    Raises
    ------
    FileError
        A picture is damaged.
    """
    kinds = [kind for kind in KINDS if (run / "images" / kind).is_dir()]
    whole = [row for row, trial in enumerate(trials) if all(path.is_file() for path in _files(run, kinds, trial))]
    here = tuple(trials[row] for row in whole)
    given = [str(trial) for trial in trials] if stimulus_ids is None else list(stimulus_ids)
    ids = tuple(given[row] for row in whole)
    notes = _left_out(set(trials) - set(here))
    if not here:
        return Measured(notes=notes)
    n_pictures = len(set(ids))
    possible, undefined = defined(select() if metrics is None else metrics, extractors, n_pictures)
    notes += undefined
    pairs = {kind: [_pair(run, kind, trial, trial) for trial in here] for kind in kinds}
    if n_pictures > 1:
        other = partners(here, seed, dict(zip(here, ids, strict=True)), trial_ids)
        for kind in (kind for kind in _FLOORS if kind in kinds):
            pairs[_FLOORS[kind]] = [_pair(run, kind, trial, other[trial]) for trial in here]
    sets = {kind: Pairs(pairs=of_kind, ids=ids, rows=whole) for kind, of_kind in pairs.items()}
    found = measure_pairs(possible, extractors, sets, run / KEPT, on_progress=on_progress)
    return Measured(trials=here, stimulus_ids=ids, values=found.values, notes=notes + found.notes)


def _files(run: Path, kinds: Sequence[str], trial: int) -> list[Path]:
    return [run / folder / f"{trial:06d}.png" for folder in ("stimuli", *(f"images/{kind}" for kind in kinds))]


def defined(
    metrics: Sequence[Metric], extractors: Mapping[str, Features], n_pictures: int
) -> tuple[list[Metric], tuple[str, ...]]:
    """The metrics that can be computed, and a sentence for each that needs more pictures."""
    possible = [metric for metric in metrics if metric.needs in extractors]
    few = [metric for metric in possible if n_pictures < metric.min_pictures]
    notes = [
        f"{metric.name} was left out: it needs {metric.min_pictures} different pictures or more, not {n_pictures}."
        for metric in few
    ]
    return [metric for metric in possible if metric not in few], tuple(notes)


def _pair(run: Path, kind: str, stimulus: int, picture: int) -> Pair:
    shown, made = run / "stimuli" / f"{stimulus:06d}.png", run / "images" / kind / f"{picture:06d}.png"
    return PictureFile(shown), PictureFile(made)


def _left_out(trials: set[int]) -> tuple[str, ...]:
    if not trials:
        return ()
    return (f"Trial(s) {', '.join(map(str, sorted(trials)))} have no picture and are left out of the metrics.",)
