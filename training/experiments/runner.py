"""An experiment from data folders to its page: every cell made or taken as it is, measured, and put together."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from ...runtime.errors import InputError
from ...runtime.locks import inside, locked
from . import folder
from .base import Cell, Say, Step, Tell
from .experiment import Experiment
from .progress import Overall
from .results import Results, modalities_of
from .subject import Plan, Subject, open_subjects
from .values import Values
from .write import write_results


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A step, or the measuring of a cell: one of both is there."""

    subject: Subject
    cell: Cell
    step: Step | None

    @property
    def kind(self) -> str:
        return "measure" if self.step is None else self.step.kind


def run_experiment(
    experiment: Experiment,
    data: Sequence[Path],
    out: Path,
    plan: Plan,
    stream: TextIO,
    *,
    table_only: bool = False,
) -> Path:
    """Make every cell that is not there, and write the result; the same call goes on where another was stopped.

    Parameters
    ----------
    experiment : Experiment
    data
        Data folders; each is a subject.
    out
        New, empty, or of the same experiment with the same settings. Subjects may be added.
    plan : Plan
    stream
        Where progress goes.
    table_only
        Make nothing, and put together the cells that are there.

    Returns
    -------
    The path of report.html.

    Raises
    ------
    InputError
        A subject that the experiment does not take; nothing measured yet, with `table_only`.
    FileError
        The folder holds something else, or is in use.
    """
    folder.check_claim(out)
    subjects = open_subjects(data, out, plan)
    for subject in subjects:
        if subject.modality not in experiment.modalities:
            raise InputError(
                f"{subject.path} is {subject.modality}, and the experiment {experiment.name} takes "
                f"{', '.join(experiment.modalities)}: give such data"
            )
    kinds = modalities_of(subjects)
    if len(kinds) > 1 and not experiment.mixed:
        raise InputError(
            f"the data are {' and '.join(kinds)}, and the experiment {experiment.name} takes one kind of signal at a "
            "time: run it once for each, with an --out of its own"
        )
    experiment.check(subjects, plan)
    cells = {subject.label: tuple(experiment.cells(subject, plan)) for subject in subjects}
    nothing = f"no cell of {out} is measured yet: leave --table-only out"
    if table_only and not (out / folder.MARKER).exists():
        raise InputError(nothing)
    with locked(inside(out), out):
        folder.claim(out, experiment, plan, subjects)
        if not table_only:
            _make(experiment, subjects, cells, stream)
        found = {subject.label: _measured(subject, cells[subject.label]) for subject in subjects}
        if not any(found.values()):
            raise InputError(nothing)
        asked = experiment.rows(kinds, plan)
        results = Results(asked=asked, plan=plan, subjects=subjects, cells=cells, values=found)
        return write_results(experiment, results, out)


def _make(
    experiment: Experiment, subjects: Sequence[Subject], cells: Mapping[str, Sequence[Cell]], stream: TextIO
) -> None:
    left, finished = _plan(subjects, cells)
    with Overall(experiment.name, [work.kind for work in left], finished, stream=stream) as overall:
        for work in left:
            what = work.cell.label if work.step is None else work.step.folder.partition("/")[2]
            prefix = f"{work.subject.label}, {work.kind} {what}"
            overall.begin(prefix)
            kind = work.kind
            if work.step is None:
                folder.keep(work.subject, work.cell, work.cell.measure(work.subject))
            else:
                kind = _make_step(work.subject, work.step, partial(_say, overall, prefix))
            overall.end(kind)
            gc.collect()  # networks of the step before, before the next ones are opened


def _plan(
    subjects: Sequence[Subject], cells: Mapping[str, Sequence[Cell]]
) -> tuple[list[_Work], list[tuple[str, float]]]:
    """What is to be made, in its order, and kind and seconds of what is there."""
    left: list[_Work] = []
    finished: list[tuple[str, float]] = []
    for subject in subjects:
        seen: dict[str, Step] = {}
        for cell in cells[subject.label]:
            for step in cell.steps:
                if step.folder in seen:
                    if seen[step.folder].describe() != step.describe():
                        raise ValueError(f"two steps of other settings share the folder {step.folder}")
                    continue
                seen[step.folder] = step
                done = folder.finished_as(subject, step)
                if done is None:
                    left.append(_Work(subject=subject, cell=cell, step=step))
                else:
                    finished.append(done)
            if folder.measured(subject, cell) is None:
                left.append(_Work(subject=subject, cell=cell, step=None))
    return left, finished


def _say(overall: Overall, prefix: str, text: str, share: float | None) -> None:
    overall.now(f"{prefix}: {text}", share)


def _make_step(subject: Subject, step: Step, now: Say) -> str:
    """Make it; gives its kind."""
    path = folder.log_path(subject, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    wall, cpu = time.monotonic(), time.process_time()
    with path.open("a", encoding="utf-8") as log:
        kind = step.make(subject, Tell(now=now, log=log)) or step.kind
    folder.finish(subject, step, kind, time.monotonic() - wall, time.process_time() - cpu)
    return kind


def _measured(subject: Subject, cells: Sequence[Cell]) -> dict[str, Values]:
    found = {cell.name: folder.measured(subject, cell) for cell in cells}
    return {name: values for name, values in found.items() if values is not None}
