"""The pairs that runs offer: a stimulus and two pictures of it that differ in their pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..images import ImageU8, fit_square, pixel_hash, read_image
from ..report.contents import RunContents, Trial, read_run
from .contrasts import Contrast

# Two runs of one trial may have pictures of two sizes: their stimuli are then compared at this size, in which another
# way to resize changes a pixel by a level or two, and another picture changes the mean by tens of them.
_SMALL, _SAME_LEVELS = 8, 8.0
STIMULUS = "stimulus"


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One picture: where it lies, and the hash of its pixels."""

    path: Path
    hash: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A stimulus and two pictures of it; `contrast` and `run` are numbers, `trial` the trial's id in that run."""

    contrast: int
    run: int
    trial: str
    stimulus: Shot
    first: Shot
    second: Shot

    @property
    def differs(self) -> bool:
        """Whether the two differ in any pixel."""
        return self.first.hash != self.second.hash


class Shots:
    """Pictures looked at once each."""

    def __init__(self) -> None:
        self._known: dict[Path, Shot] = {}

    def __call__(self, path: Path) -> Shot:
        if path not in self._known:
            image = read_image(path)
            self._known[path] = Shot(path=path, hash=pixel_hash(image), size=min(image.shape[:2]))
        return self._known[path]


def pairs_of(
    runs: Sequence[Path], contrasts: Sequence[Contrast], on_progress: Callable[[int, int], object]
) -> list[Pair]:
    """Every pair of every contrast, in the order of the runs and their trials.

    Parameters
    ----------
    runs
        Run folders, with stimuli.
    contrasts
        What is compared.
    on_progress
        Called with the number of trials that were looked at, and of all.

    Raises
    ------
    InputError
        A run has no stimuli or not the kind of picture, two runs have no trial in common or showed different stimuli in
        one, or runs that are pooled have pictures of different sizes.
    FileError
        A run or one of its pictures cannot be read.
    """
    contents = [_contents(run) for run in runs]
    shots, made, done = Shots(), list[Pair](), 0
    work = [_trials(number, contrast, runs, contents) for number, contrast in enumerate(contrasts)]
    for number, rows in enumerate(work):
        for run, first, second in rows:
            made.append(_pair(number, contrasts[number], runs, run, (first, second), shots))
            done += 1
            on_progress(done, sum(map(len, work)))
    _check_sizes(made, runs)
    return made


def _contents(run: Path) -> RunContents:
    found = read_run(run)
    if STIMULUS not in found.pictures:
        raise InputError(
            f"{run} has no stimuli to compare its pictures with: run it again with --stimuli DIR, or from a data "
            "folder that has them"
        )
    return found


Row = tuple[int, Trial, Trial]


def _trials(number: int, contrast: Contrast, runs: Sequence[Path], contents: Sequence[RunContents]) -> list[Row]:
    """The trials that have what a contrast compares, each with its run; two runs' trials meet by their ids."""
    first, second = contrast.first, contrast.second
    rows: list[Row] = []
    if first.run is None or second.run is None:
        for run, found in enumerate(contents):
            rows += [(run, trial, trial) for trial in _with(runs[run], found, first.kind, second.kind)]
    else:
        others = _by_name(_with(runs[second.run], contents[second.run], second.kind))
        here = _by_name(_with(runs[first.run], contents[first.run], first.kind))
        rows = [(first.run, trial, others[name]) for name, trial in here.items() if name in others]
        if not rows:
            raise InputError(f"{runs[0]} and {runs[1]} have no trial in common: give two runs of the same responses")
    return rows


def _with(run: Path, found: RunContents, *kinds: str) -> list[Trial]:
    there = [kind for kind in found.pictures if kind != STIMULUS]
    for kind in kinds:
        if kind not in there:
            raise InputError(f"{run} has no pictures of the kind {kind!r}: it has {', '.join(there)}")
    whole = [trial for trial in found.trials if {STIMULUS, *kinds} <= trial.pictures.keys()]
    if not whole:
        raise InputError(f"{run} has no trial with {' and '.join(kinds)} and its stimulus: finish the run first")
    return whole


def _by_name(trials: Sequence[Trial]) -> Mapping[str, Trial]:
    return {_name(trial): trial for trial in trials}


def _name(trial: Trial) -> str:
    return str(trial.number) if trial.name is None else trial.name


def _pair(
    number: int, contrast: Contrast, runs: Sequence[Path], run: int, trials: tuple[Trial, Trial], shots: Shots
) -> Pair:
    stimuli = [shots(trial.pictures[STIMULUS]) for trial in trials]
    if stimuli[0].hash != stimuli[1].hash and not _alike(*stimuli):
        raise InputError(
            f"trial {_name(trials[0])} showed one stimulus in {runs[0]} and another in {runs[1]}: give two runs of the "
            "same responses"
        )
    return Pair(
        contrast=number,
        run=run,
        trial=_name(trials[0]),
        stimulus=max(stimuli, key=lambda shot: shot.size),
        first=shots(trials[0].pictures[contrast.first.kind]),
        second=shots(trials[1].pictures[contrast.second.kind]),
    )


def _alike(one: Shot, other: Shot) -> bool:
    """Whether two pictures of different sizes are the same one."""
    if one.size == other.size:
        return False
    small = [fit_square(read_image(shot.path), _SMALL).astype(np.float64) for shot in (one, other)]
    return bool(np.abs(small[0] - small[1]).mean() <= _SAME_LEVELS)


def _check_sizes(pairs: Sequence[Pair], runs: Sequence[Path]) -> None:
    """Stimuli are counted by their pixels: one that two runs have at two sizes would count as two."""
    sizes = {pair.stimulus.size: pair.run for pair in pairs}
    if len(sizes) > 1:
        (one, run), (other, second) = list(sizes.items())[:2]
        raise InputError(
            f"the stimuli of {runs[run]} have {one} px and those of {runs[second]} {other} px: pool runs of one size, "
            "or give each a study of its own"
        )


def shown(path: Path, size: int) -> ImageU8:
    """A picture as it is shown: a square of the study's size, (size, size, 3) uint8."""
    return fit_square(read_image(path), size)
