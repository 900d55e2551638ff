"""Every metric of every picture of a run, from the files in its folder; what did not change is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ShapeError
from ..files import sha256_of
from ..images import read_image, to_float
from ..metrics import Metric
from ..metrics.base import Array
from ..metrics.extractors import EXTRACTORS, Features, Given, Unavailable
from ..metrics.kept import Kept, code_identity, key_of
from ..metrics.select import select
from .controls import partners

KINDS = ("stage1", "stage2", "shuffled", "oracle")
FLOOR = "stage1_floor"
KEPT = "measured.safetensors"
# Pictures are measured so many at a time: a thousand of 512 px would not fit a laptop's memory as float32.
_BLOCK = 32
# What a process that is killed has to measure again, at most; one that is interrupted has nothing to.
_SAVE_EVERY = 10 * _BLOCK

Values = dict[str, NDArray[np.float64]]
Pair = tuple[Path, Path]  # stimulus, picture
OnProgress = Callable[[int, int], None]
T = TypeVar("T")


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
        Kind ("stage1", "stage2", "shuffled", "oracle", those there are, and "stage1_floor": stage 1 of another
        picture's trial against this trial's stimulus, where there are two pictures) -> metric -> (n,) float64.
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
    defined, undefined = _defined(select() if metrics is None else metrics, extractors, n_pictures)
    notes += undefined
    pairs = {kind: [_pair(run, kind, trial, trial) for trial in here] for kind in kinds}
    if n_pictures > 1 and "stage1" in kinds:
        other = partners(here, seed, dict(zip(here, ids, strict=True)), trial_ids)
        pairs[FLOOR] = [_pair(run, "stage1", trial, other[trial]) for trial in here]
    kept = Kept(run / KEPT)
    work = _Measuring(extractors, kept, on_progress)
    finished = False
    try:
        values, unusable = work.measure(defined, pairs, ids, whole)
        finished = True
    finally:  # what was measured until an interruption is kept too
        kept.save(all_used=finished)
    return Measured(trials=here, stimulus_ids=ids, values=values, notes=notes + unusable)


def _files(run: Path, kinds: Sequence[str], trial: int) -> list[Path]:
    return [run / folder / f"{trial:06d}.png" for folder in ("stimuli", *(f"images/{kind}" for kind in kinds))]


def _defined(
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
    return run / "stimuli" / f"{stimulus:06d}.png", run / "images" / kind / f"{picture:06d}.png"


def _left_out(trials: set[int]) -> tuple[str, ...]:
    if not trials:
        return ()
    return (f"Trial(s) {', '.join(map(str, sorted(trials)))} have no picture and are left out of the metrics.",)


class _Measuring:
    """Looks up what is kept, then measures the rest in blocks."""

    def __init__(self, extractors: Mapping[str, Features], kept: Kept, on_progress: OnProgress | None) -> None:
        self._extractors, self._kept, self._on_progress = extractors, kept, on_progress
        self._digests: dict[Path, str] = {}
        self._done = self._total = self._saved = 0

    def measure(
        self, metrics: Sequence[Metric], pairs: Mapping[str, Sequence[Pair]], ids: Sequence[str], rows: Sequence[int]
    ) -> tuple[dict[str, Values], tuple[str, ...]]:
        """Kind -> metric -> values, and why metrics are left out.

        `rows` are the measured trials' among those that extractors know the truth of.
        """
        of_images = [metric for metric in metrics if self._extractors[metric.needs].of_pictures is None]
        needed = dict.fromkeys(metric.needs for metric in metrics if metric not in of_images)
        all_pairs = [pair for those in pairs.values() for pair in those] if of_images else []
        missing_pairs = [p for p in dict.fromkeys(all_pairs) if any(self._value(m, p) is None for m in of_images)]
        missing_files = {name: self._missing_files(name, pairs) for name in needed}
        self._total = len(missing_pairs) + sum(map(len, missing_files.values()))
        if self._total:
            self._tell(0)
        self._measure_pairs(of_images, missing_pairs)
        for name, files in missing_files.items():
            self._extract(name, files)
        found: dict[str, Values] = {kind: {} for kind in pairs}
        notes = []
        for metric in metrics:
            by_kind = {kind: self._values(metric, those, ids, rows) for kind, those in pairs.items()}
            broken = [kind for kind, values in by_kind.items() if not np.isfinite(values).all()]
            if broken:  # such as features of a network that overflowed; the other metrics are worth having
                notes.append(f"{metric.name} was left out: it is NaN or infinite for some pictures of {broken[0]}.")
                continue
            for kind, values in by_kind.items():
                found[kind][metric.name] = values
        return found, tuple(notes)

    def _values(
        self, metric: Metric, pairs: Sequence[Pair], ids: Sequence[str], rows: Sequence[int]
    ) -> NDArray[np.float64]:
        features = self._extractors[metric.needs]
        if features.of_pictures is None:
            return self._kept.rows(_identity(metric), [self._key(*pair) for pair in pairs])
        identity = self._features_identity(metric.needs)
        found = self._kept.rows(identity, [self._key(picture) for _, picture in pairs])
        if features.truth is not None:
            truth = features.truth[list(rows)]
        else:
            truth = self._kept.rows(identity, [self._key(stimulus) for stimulus, _ in pairs])
        if not (np.isfinite(truth).all() and np.isfinite(found).all()):
            return np.full(len(pairs), np.nan)
        return metric(truth, found, ids)

    def _measure_pairs(self, metrics: Sequence[Metric], pairs: Sequence[Pair]) -> None:
        for block in _blocks(pairs):
            stimuli, pictures = _images([stimulus for stimulus, _ in block]), _images([picture for _, picture in block])
            for metric in metrics:
                values = metric(stimuli, pictures, ())
                for (stimulus, picture), value in zip(block, values, strict=True):
                    self._kept.put(_identity(metric), self._key(stimulus, picture), value)
            self._tell(len(block))

    def _extract(self, name: str, files: Sequence[Path]) -> None:
        features = self._extractors[name]
        for block in _blocks(files):
            assert features.of_pictures is not None  # only such extractors have files to go through
            rows = np.asarray(features.of_pictures(_images(block)))
            if rows.shape[:1] != (len(block),):
                raise ShapeError(
                    f"the features {name!r} of {len(block)} images have shape {rows.shape}: return one row per image"
                )
            for path, row in zip(block, rows, strict=True):
                self._kept.put(self._features_identity(name), self._key(path), row)
            self._tell(len(block))

    def _missing_files(self, name: str, pairs: Mapping[str, Sequence[Pair]]) -> list[Path]:
        knows_truth = self._extractors[name].truth is not None
        files = [path for those in pairs.values() for pair in those for path in (pair[1:] if knows_truth else pair)]
        first = {self._key(path): path for path in files if self._row(name, path) is None}
        return list(first.values())  # equal files once

    def _value(self, metric: Metric, pair: Pair) -> Array | None:
        return self._kept.get(_identity(metric), self._key(*pair))

    def _row(self, name: str, path: Path) -> Array | None:
        return self._kept.get(self._features_identity(name), self._key(path))

    def _features_identity(self, name: str) -> str:
        return f"{code_identity()} features {name} {self._extractors[name].identity}"

    def _key(self, *paths: Path) -> bytes:
        for path in paths:
            if path not in self._digests:
                self._digests[path] = sha256_of(path)
        return key_of(*(self._digests[path] for path in paths))

    def _tell(self, n_more: int) -> None:
        self._done += n_more
        if self._done - self._saved >= _SAVE_EVERY:
            self._kept.save(all_used=False)
            self._saved = self._done
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


def _identity(metric: Metric) -> str:
    function = metric.function
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{code_identity()} metric {metric.name} {function.__module__}.{name}"


def _blocks(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + _BLOCK] for start in range(0, len(items), _BLOCK)]


def _images(paths: Sequence[Path]) -> NDArray[np.float32]:
    return to_float(np.stack([read_image(path) for path in paths]))
