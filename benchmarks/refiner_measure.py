"""The package's own metrics of the bench's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from refiner_contestants import STAGE1
from refiner_runs import Folder, Plan, Say, Subject, read
from refiner_table import Result, Values

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.images import to_float
from minddiffuser.runtime.metrics import METRICS
from minddiffuser.runtime.metrics.extractors import Given
from minddiffuser.runtime.run.measure import open_extractors

_BLOCK = 32


class Measure:
    """Compares pictures with what a subject's trials showed. `notes` say which metrics are left out, and why."""

    def __init__(self, subject: Subject) -> None:
        backend = subject.backend
        given = Given(
            embed=backend.embedding if backend.embeds else None,
            classifier=backend.classifier,
            locator=backend.locator,
            captions=subject.captions,
            device=backend.device,
        )
        self._extractors, self.notes = open_extractors(given)
        self._ids = subject.stimulus_ids
        self._truth = self.features(subject.stimuli)
        for name, features in self._extractors.items():
            if features.truth is not None:
                self._truth[name] = features.truth

    def features(self, pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
        """Extractor -> one row per picture (n, H, W, 3)."""
        images = to_float(pictures)
        found: dict[str, NDArray[np.generic]] = {}
        for name, features in self._extractors.items():
            look = features.of_pictures
            found[name] = (
                images
                if look is None
                else np.concatenate([look(images[at : at + _BLOCK]) for at in range(0, len(images), _BLOCK)])
            )
        return found

    def values(self, features: Mapping[str, NDArray[np.generic]], n: int) -> Values:
        """Metric -> (n,), of the first n trials among themselves."""
        ids = self._ids[:n]
        return {
            name: metric(self._truth[metric.needs][:n], features[metric.needs][:n], ids)
            for name, metric in METRICS.items()
            if metric.default and metric.needs in self._extractors and len(set(ids)) >= metric.min_pictures
        }


def results(
    subjects: Sequence[Subject], measures: Sequence[Measure], plan: Plan, sizes: Sequence[int], say: Say
) -> dict[int, list[Result]]:
    """Every refiner whose pictures are there, the subjects pooled, by the number of first trials of each subject.

    A refiner of which some batch is missing is left out, which is said, and a heavy one from the sizes that it does not
    reach.

    Raises
    ------
    InputError
        Stage 1 itself is not there.
    """
    folders = [Folder(subject.place) for subject in subjects]
    costs, sampling = subjects[0].backend.costs, subjects[0].sampling
    found: dict[int, list[Result]] = {n: [] for n in sizes}
    for contestant in plan.contestants:
        for condition in plan.conditions_of(contestant):
            paths = [folder.paths(plan, contestant, condition) for folder in folders]
            there = [path.exists() for batches in paths for path in batches]
            if not all(there):
                if contestant.name == STAGE1:
                    raise InputError(
                        "the pictures of stage 1 are not there yet: run the same command without --table-only"
                    )
                say(f"left out: {contestant.name}, {condition}, {sum(there)} of {len(there)} batches")
                continue
            made = [read(batches) for batches in paths]
            features = [measure.features(pictures) for measure, (pictures, _) in zip(measures, made, strict=True)]
            for n in sizes:
                if n > len(made[0][0]):
                    continue
                values = [measure.values(rows, n) for measure, rows in zip(measures, features, strict=True)]
                result = Result(
                    name=contestant.name,
                    label=contestant.label,
                    condition=condition,
                    values=pooled(values),
                    cost=contestant.cost(costs, sampling),
                    seconds=[seconds for _, batches in made for seconds in batches],
                )
                found[n].append(result)
    return found


def pooled(values: Sequence[Values]) -> Values:
    """Subjects one after the other, by the metrics that all of them have."""
    shared = [metric for metric in values[0] if all(metric in each for each in values)]
    return {metric: np.concatenate([each[metric] for each in values]) for metric in shared}


def pooled_ids(subjects: Sequence[Subject], n_trials: int) -> list[str]:
    """Whose trial, and which picture it showed: pictures of two subjects are different ones."""
    return [f"{subject.place.name}/{shown}" for subject in subjects for shown in subject.stimulus_ids[:n_trials]]
