"""The metrics of pictures that stage 2 went through on its way, by the same code as those of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime import backends
from ...runtime.backends.base import Backend, Needs
from ...runtime.environment import versions
from ...runtime.files import writing
from ...runtime.metrics import Metric
from ...runtime.metrics.extractors import Features, Given
from ...runtime.metrics.select import select
from ...runtime.run.measure import measure_run, open_extractors
from .cells import measured_trials, run_values
from .steps import Run, frame_folder
from .subject import Subject
from .values import Values, by_picture, mean_of


@dataclass(frozen=True, kw_only=True)
class MeasureFrames:
    """Columns "METRIC.frameK" beside those of the runs' pictures."""

    runs: tuple[Run, ...]

    def __call__(self, subject: Subject) -> Values:
        return mean_of([self._run(subject, run) for run in self.runs])

    def _run(self, subject: Subject, run: Run) -> Values:
        folder = subject.out / run.folder
        found = run_values(folder)
        rows = measured_trials(folder)
        trials, ids = [row["trial"] for row in rows], [row["stimulus_id"] for row in rows]
        columns = dict(found.columns)
        with ExitStack() as stack:
            extractors = _extractors(subject, run, trials, stack)
            for number in run.frames:
                values = _measured(folder, number, trials, ids, extractors, select(subject.plan.metrics))
                columns |= {f"{name}.frame{number}": array for name, array in values.items()}
        return replace(found, columns=columns)


def _measured(
    run: Path,
    number: int,
    trials: Sequence[int],
    ids: Sequence[str],
    extractors: dict[str, Features],
    metrics: Sequence[Metric],
) -> dict[str, Any]:
    """Metric -> one value per picture of the run; nothing for an iteration that some trial did not come to."""
    pictures = frame_folder(run, number)
    if not all((pictures / f"{trial:06d}.png").is_file() for trial in trials):
        return {}
    root = pictures.parent.parent
    for trial in trials:
        name = f"{trial:06d}.png"
        target = root / "stimuli" / name
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / "stimuli" / name, target)
    measured = measure_run(root, trials, extractors, metrics=metrics, stimulus_ids=ids)
    return dict(by_picture(measured.values["stage1"], ids).columns) if measured.trials else {}


def _extractors(subject: Subject, run: Run, trials: Sequence[int], stack: ExitStack) -> dict[str, Features]:
    """What the metrics compare, as in the run itself."""
    options = replace(run.job(subject).options, needs=Needs(refine=False, steps_back=False))
    backend: Backend[Any] = stack.enter_context(backends.open(subject.out / run.fit.folder, options))
    backend.start()
    data = subject.data
    shown, captions = data.stimulus("test"), data.captions("test")
    computed = [backend.models_hash, backend.computing, versions(backend.libraries)]
    given = Given(
        embed=backend.embedding if backend.embeds else None,
        embed_identity=json.dumps(computed, sort_keys=True),
        classifier=backend.classifier,
        locator=backend.locator,
        captions=[captions[shown[trial]] for trial in trials] if len(captions) else (),
        device=backend.device,
        weights=subject.plan.weights,
        download=subject.plan.download_weights,
    )
    return open_extractors(given, select(subject.plan.metrics))[0]


def marks(n_frames: int, most: int = 12) -> tuple[int, ...]:
    """Which of so many frames are kept: the first, the last, and some between, at most `most` of them."""
    return tuple(np.unique(np.linspace(1, n_frames, min(most, n_frames)).round().astype(int)).tolist())
