"""The two steps of most cells: a checkpoint that is fitted, and a run of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from ...runtime.backends.base import Options
from ...runtime.errors import MindDiffuserError
from ...runtime.features import TARGETS
from ...runtime.images import write_png
from ...runtime.metrics.select import select
from ...runtime.run.execute import run_job
from ...runtime.run.job import Job
from ...runtime.run.reconstruct import REFINEMENT, ReconstructSettings
from ..candidates import ConceptSettings, concept_settings
from ..decoders.base import make_decoder
from ..regions import Regions
from ..selection import SelectionSettings
from ..settings import FitSettings
from .base import TAKEN, Tell
from .folder import check_models
from .shared_fits import make_shared, shared_place
from .subject import Plan, Subject

# A ridge on EEG and MEG takes every sample of every channel, with a penalty by cross-validation: the paper's own
# numbers of voxels are for fMRI. From all values, the folds of the selection share a factorisation.
_ALL_VALUES: Mapping[str, Any] = {"n_selected": 1_000_000, "alpha": "cv"}


_PERCENT = re.compile(r"\((\d+) %\)")
# The phases of a fit by the ridge, and the share of its time that each takes, measured with the paper's settings.
_PHASES = {
    "features": 0.05,
    "context": 0.02,
    "embedding": 0.0,
    "latent": 0.04,
    "semantic": 0.01,
    "selection": 0.66,
    "structure": 0.1,
    "scores": 0.12,
}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A checkpoint.

    Attributes
    ----------
    name
        Of its folder.
    decoder, options
        A kind of decoder, and options of it.
    of
        The features that it decodes; the ridge decodes the others.
    shared_trunk, regions, percent
        As in ``md-train fit``.
    """

    name: str = "ridge"
    decoder: str = "ridge"
    options: Mapping[str, Any] | None = None
    of: tuple[str, ...] = TARGETS
    shared_trunk: bool = False
    regions: Regions | None = None
    percent: float = 25.0
    kind: str = "fit"

    @property
    def folder(self) -> str:
        return f"checkpoints/{self.name}"

    def describe(self) -> Mapping[str, Any]:
        return {
            "decoder": self.decoder,
            "options": dict(self.options or {}),
            "of": list(self.of),
            "shared_trunk": self.shared_trunk,
            "regions": None if self.regions is None else asdict(self.regions),
            "percent": self.percent,
        }

    def settings(self, subject: Subject) -> FitSettings:
        """The settings of ``md-train fit`` for a subject's data."""
        temporal = subject.modality != "fmri"
        ridge = _ALL_VALUES if temporal else {}
        own = {**(ridge if self.decoder == "ridge" else {}), **(self.options or {})}
        decoders: dict[str, Any] = {
            feature: make_decoder(self.decoder, feature, **own)
            if feature in self.of
            else make_decoder("ridge", feature, **ridge)
            for feature in TARGETS
        }
        # The same for every decoder, so that all are compared over the same dimensions, and computed once.
        selection = SelectionSettings(percent=self.percent, **(_ALL_VALUES if temporal else {}))
        return FitSettings(
            **decoders,
            concepts=_concepts(subject),
            selection=selection,
            cache_dir=subject.cache,
            n_threads=subject.plan.threads,
            shared_trunk=self.shared_trunk,
            device=subject.plan.device,
            regions=self.regions,
        )

    def make(self, subject: Subject, tell: Tell) -> str | None:
        from ..fit import check, fit, fit_key

        out, settings = subject.out / self.folder, self.settings(subject)
        check(subject.data, out, settings)

        def progress(phase: str, done: int, total: int) -> None:
            part = done / max(total, 1)
            tell.now(f"{phase} {100 * part:.0f} %", _share(phase, part))

        def say(line: str) -> None:
            tell.log.write(f"{line}\n")

        models = opened_models(subject.plan)
        check_models(subject.out.parent, models.hash)

        def make(folder: Path) -> None:
            fit(subject.data, models, folder, settings, progress=progress, say=say)

        if subject.plan.cache is None:
            make(out)
            return None
        place = shared_place(subject.plan.cache, fit_key(subject.data, models, settings))
        if make_shared(place, out, make, lambda line: tell.now(line, None)):
            return None
        say(f"taken from {place}")
        return TAKEN


def _share(phase: str, part: float) -> float | None:
    """The share of a fit that is done, by that of a phase; None for phases that only networks have."""
    if phase not in _PHASES:
        return None
    before = list(_PHASES)[: list(_PHASES).index(phase)]
    return sum(_PHASES[name] for name in before) + _PHASES[phase] * part


def _concepts(subject: Subject) -> ConceptSettings | None:
    """The route of the context, as ``md-train fit`` chooses it.

    Simulated subjects see every thing in training, so that a concept's place is the mean of its training pictures.
    """
    data = subject.data
    found = concept_settings(data, route=None, names=None, prompt=None, prototypes=None)
    if found is None or subject.brain is None:
        return found
    return concept_settings(data, route=None, names=None, prompt=None, prototypes="images")


@lru_cache(maxsize=1)
def opened_models(plan: Plan) -> Any:
    """The models of a plan, opened once."""
    from ...runtime.models.device import choose_device
    from ...runtime.models.open import load_models

    if plan.threads is not None:
        import torch

        torch.set_num_threads(plan.threads)
    return load_models(plan.models, clip=plan.clip, device=choose_device(plan.device))


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of a checkpoint.

    Attributes
    ----------
    name
        Of its folder.
    fit
        Whose checkpoint is run.
    settings
        Of both stages, with the seed.
    frames
        Iterations of stage 2 whose pictures are kept in RUN/frames/K, counted from 1 as they come.
    """

    name: str
    fit: Fit
    settings: ReconstructSettings
    frames: tuple[int, ...] = ()
    kind: str = "run"

    @property
    def folder(self) -> str:
        return f"runs/{self.name}"

    def describe(self) -> Mapping[str, Any]:
        return {"checkpoint": self.fit.folder, **self.settings.as_dict(), "frames": list(self.frames)}

    def job(self, subject: Subject) -> Job:
        """What ``md-reconstruct run`` is to do."""
        plan = subject.plan
        return Job(
            checkpoint=subject.out / self.fit.folder,
            responses=subject.path,
            out=subject.out / self.folder,
            options=Options(
                models=plan.models, clip=plan.clip, device=plan.device, threads=plan.threads, share_threads=True
            ),
            stimuli_root=plan.stimuli_root,
            skip_trials=subject.left_out,
            metrics=tuple(metric.name for metric in select(plan.metrics)),
            weights=plan.weights,
            download_weights=plan.download_weights,
            settings=self.settings,
        )

    def make(self, subject: Subject, tell: Tell) -> str | None:
        frames = _Frames(subject.out / self.folder, self.frames) if self.frames else None
        outcome, _ = run_job(self.job(subject), cast(TextIO, _Stream(tell)), frames)
        if not outcome.trials:
            raise MindDiffuserError(f"no trial of {subject.path} has a picture: see {subject.out / self.folder}")
        return None


class _Stream:
    """A run's progress: into the step's log, and its last line to the whole's."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def write(self, text: str) -> int:
        self._tell.log.write(text)
        lines = text.strip().splitlines()
        if lines and ":" in lines[-1] and not lines[-1].startswith("md-reconstruct"):
            share = _PERCENT.search(lines[-1]) if lines[-1].startswith("reconstructing") else None
            self._tell.now(lines[-1], None if share is None else int(share[1]) / 100)
        return len(text)

    def flush(self) -> None:
        self._tell.log.flush()

    def isatty(self) -> bool:
        return False


class _Frames:
    """Keeps some of the pictures that a refinement goes through."""

    def __init__(self, run: Path, kept: Sequence[int]) -> None:
        self._run, self._kept, self._seen = run, frozenset(kept), dict[int, int]()

    def __call__(self, phase: str, trials: Sequence[int], pictures: NDArray[np.uint8]) -> None:
        if phase != REFINEMENT:
            return
        for trial, picture in zip(trials, pictures, strict=True):
            number = self._seen[trial] = self._seen.get(trial, 0) + 1
            if number in self._kept:
                write_png(frame_folder(self._run, number) / f"{trial:06d}.png", picture)


def frame_folder(run: Path, number: int) -> Path:
    """Where the pictures of an iteration are: laid out as a run folder's, so that they are measured as those."""
    return run / "frames" / f"{number:04d}" / "images" / "stage1"
