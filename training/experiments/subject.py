"""One data folder of an experiment: the subject, which of its test trials are used, and what all cells share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...runtime.data.folder import DataFolder, open_data
from ...runtime.data.simulated import simulated_brain
from ...runtime.errors import FileError, InputError
from ...runtime.files import sha256_of
from ...runtime.metrics.select import select
from ..datasets.base import pictures_shown


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all cells of an experiment share.

    Attributes
    ----------
    seeds
        Of the start noise: each run is made once for each.
    n_trials
        Test pictures of each subject, one trial of each; None: all trials.
    full
        Whether stage 2 is the package's default with both controls, and EEG and MEG have the paper's decoders.
    models, clip, device, threads, stimuli_root, cache, metrics, weights, download_weights
        As in the package's commands.
    surface
        What to draw on, see :mod:`..interpret.surface`; None: nothing.

    Raises
    ------
    InputError, FileError
        There is no such metric; `weights` is no folder.
    """

    seeds: tuple[int, ...] = (42,)
    n_trials: int | None = 32
    full: bool = False
    models: str = "tiny"
    clip: str | None = None
    device: str = "auto"
    threads: int | None = None
    stimuli_root: Path | None = None
    cache: Path | None = None
    surface: str | None = None
    metrics: str = "default"
    weights: Path | None = None
    download_weights: bool = False

    def __post_init__(self) -> None:
        select(self.metrics)  # before hours are spent on fits
        if self.weights is not None and not self.weights.is_dir():
            raise FileError(f"the weights folder {self.weights} does not exist: check the path (--weights)")

    def deciding(self) -> dict[str, Any]:
        """What changes the numbers, as JSON."""
        return {
            "seeds": list(self.seeds),
            "n_trials": self.n_trials,
            "full": self.full,
            "models": self.models,
            "clip": self.clip,
            "metrics": [metric.name for metric in select(self.metrics)],
        }


class Subject:
    """A subject of an experiment.

    Attributes
    ----------
    label : str
        The data folder's name.
    path, out, cache : Path
        The data folder; where its cells go; where features are kept, which all subjects share.
    trials : tuple of int
        Rows of the test split that are reconstructed and decoded.
    """

    def __init__(self, path: Path, out: Path, plan: Plan) -> None:
        self.path, self.plan = path, plan
        self.label = path.resolve().name
        self.out, self.cache = out / self.label, plan.cache or out / "features"
        self.trials = tuple(_chosen(self.data, plan.n_trials))

    @cached_property
    def data(self) -> DataFolder:
        return open_data(self.path, stimuli_root=self.plan.stimuli_root)

    @property
    def modality(self) -> str:
        return self.data.layout.modality

    @property
    def brain(self) -> str | None:
        """The kind of brain of a simulated subject; None for a real one."""
        return simulated_brain(self.data.provenance)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The ids of the other test trials."""
        ids, used = self.data.trial_ids("test"), set(self.trials)
        return tuple(name for row, name in enumerate(ids) if row not in used)

    @property
    def identity(self) -> str:
        """SHA-256 of the data folder's description."""
        return sha256_of(self.path / "data.json")


def open_subjects(paths: Sequence[Path], out: Path, plan: Plan) -> list[Subject]:
    """Open the data folders of an experiment.

    Raises
    ------
    InputError
        Two folders have the same name, or one has no test trial.
    FileError
        A folder is missing or damaged.
    """
    subjects = [Subject(path, out, plan) for path in paths]
    labels = [subject.label for subject in subjects]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"two data folders are named {label!r}: results are kept by that name, rename one of them")
        if label == "features" or label.startswith("."):
            raise InputError(f"a data folder is named {label!r}, which has another use here: rename it")
    return subjects


def _chosen(data: DataFolder, n_trials: int | None) -> list[int]:
    """The first trial of each of the first pictures, or all trials."""
    shown = pictures_shown(data, "test").tolist()
    if not shown:
        raise InputError(f"{data.folder} has no test trial: an experiment reconstructs those")
    if n_trials is None:
        return list(range(len(shown)))
    first = {picture: row for row, picture in reversed(list(enumerate(shown)))}
    return sorted(first.values())[:n_trials]
