"""One simulated subject, from pictures to a data folder; features are streamed, never held together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.data.destination import check_target, claimed
from ...runtime.data.folder import DataFolder, SplitData, write_claimed
from ...runtime.data.trial_ids import default_trial_ids
from ...runtime.errors import InputError
from ...runtime.images import cut_by_squares, list_pictures, read_image
from ...runtime.progress import unheard
from .base import OnProgress, VoxelSubject
from .brains.base import SimulatedBrain
from .fmri import FmriSettings, Responses, simulate_fmri
from .shown import Shown, Squares, rendered

GENERATOR_VERSION = 2
_LONGEST_NAME = 150


@dataclass(frozen=True, kw_only=True)
class Showing:
    """What the subject is shown.

    Parameters
    ----------
    n_train : training pictures, of combinations that the tiny world was trained on.
    n_test : test pictures, held-out combinations among them; not used when `stimuli` is given.
    stimuli : a folder of pictures (PNG, JPEG, WebP, TIFF, BMP) of any size, shown as the test split instead. They have
        no captions: what they show is for the brain to find out.
    """

    n_train: int = 1200
    n_test: int = 128
    stimuli: Path | None = None

    def __post_init__(self) -> None:
        if self.n_train < 2 or self.n_test < 1:
            raise InputError(
                f"{self.n_train} training and {self.n_test} test pictures requested: give at least 2 and 1"
            )


def simulate_subject(
    out: Path | str,
    brain: SimulatedBrain,
    settings: FmriSettings,
    showing: Showing,
    *,
    seed: int,
    replace: bool = False,
    progress: OnProgress | None = None,
) -> DataFolder:
    """Simulate an fMRI subject that looks at pictures, and write its data folder.

    Parameters
    ----------
    out : the data folder to write.
    brain : what drives the voxels.
    settings : the subject and the scanner.
    showing : the pictures.
    seed : of everything: pictures, brain and noise, each from a child of its own.
    replace : allow an existing data folder to be replaced.
    progress : called with (phase, done, total).

    Returns
    -------
    DataFolder, opened and checked.

    Raises
    ------
    InputError
        The seed cannot be used.
    FileError
        A picture cannot be decoded, or the folder cannot be written, or another process is writing it.
    """
    check_subject(out, showing, seed=seed, replace=replace)
    with claimed(out, replace=replace):
        made = fmri_subject(brain, settings, showing, seed=seed, progress=progress)
        return write_claimed(
            out,
            {split: _split(split, made.responses[split], made.pictures[split]) for split in ("train", "test")},
            subject=made.name,
            rois=made.rois,
            provenance=made.provenance,
        )


def fmri_subject(
    brain: SimulatedBrain,
    settings: FmriSettings,
    showing: Showing,
    *,
    seed: int,
    single_trials: bool = False,
    progress: OnProgress | None = None,
) -> VoxelSubject:
    """Simulate an fMRI subject that looks at pictures.

    Parameters
    ----------
    brain, settings, showing, seed, progress : as of :func:`simulate_subject`.
    single_trials : whether the showings of a test picture stay trials of their own.
    """
    seeds = Seeds.of(seed)
    pictures = shown_pictures(showing, brain.image_size, seeds)
    looked = brain.look(
        pictures["train"], pictures["test"], settings, np.random.default_rng(seeds.brain), progress or unheard
    )
    drives = {"train": looked.train, "test": looked.test}
    noise_rng = np.random.default_rng(seeds.noise)
    return VoxelSubject(
        name=f"simulated-{seed}",
        seed=seed,
        pictures=pictures,
        rois={**settings.rois, **settings.groups},
        responses=simulate_fmri(looked.share, drives, settings, noise_rng, single_trials=single_trials),
        provenance=_provenance(brain, settings, seed, sources_of(showing, pictures)),
    )


@dataclass(frozen=True)
class Seeds:
    """Of what a subject is made of, each a child of the subject's own."""

    train: np.random.SeedSequence
    test: np.random.SeedSequence
    brain: np.random.SeedSequence
    noise: np.random.SeedSequence

    @staticmethod
    def of(seed: int) -> Seeds:
        """The four children of one seed."""
        return Seeds(*np.random.SeedSequence(seed).spawn(4))


def shown_pictures(showing: Showing, size: int, seeds: Seeds) -> dict[str, Shown]:
    """What is shown, as squares of `size` px: the tiny world's pictures, or a person's own as the test split."""
    train = rendered(seeds.train, showing.n_train, size, combinations="seen")
    if showing.stimuli is None:
        return {"train": train, "test": rendered(seeds.test, showing.n_test, size, combinations="all")}
    paths = list_pictures(showing.stimuli)
    names = [os.fsencode(path.name).decode(errors="replace") for path in paths]
    return {"train": train, "test": Shown(Squares(paths, size), [], names)}


def sources_of(showing: Showing, pictures: Mapping[str, Shown]) -> dict[str, Any]:
    """Where the pictures come from, for the provenance; `note` says what is cut off a person's own."""
    own = None if showing.stimuli is None else list(pictures["test"].names)
    return {"train": ["tiny world"], "test": own or ["tiny world"], "note": check_pictures(showing)}


def check_subject(out: Path | str, showing: Showing, *, seed: int, replace: bool = False) -> None:
    """Check the settings, the output folder and the pictures before any model is opened.

    Raises
    ------
    InputError, FileError
        As :func:`simulate_subject`.
    """
    check_seed(seed)
    check_target(out, replace=replace)
    check_pictures(showing)


def check_seed(seed: int) -> None:
    """Refuse a seed that numpy does not take."""
    if seed < 0:
        raise InputError(f"seed is {seed}: give a seed of at least 0")


def check_pictures(showing: Showing) -> str | None:
    """Decode a person's own pictures; what is cut off them, in one sentence, or None.

    Raises
    ------
    FileError
        One cannot be decoded.
    """
    if showing.stimuli is None:
        return None
    return cut_by_squares((path.name, read_image(path)) for path in list_pictures(showing.stimuli))


def _split(name: str, responses: Responses, shown: Shown) -> SplitData:
    return SplitData(
        responses=responses.responses,
        stimulus=responses.stimulus,
        images=shown.images,
        captions=shown.captions,
        noise_ceiling=responses.noise_ceiling,
        trial_ids=_trial_ids(name, responses, shown),
    )


def _trial_ids(split: str, responses: Responses, shown: Shown) -> tuple[str, ...]:
    """split/picture/repetition, with the name of a person's own picture in place of its number where it has one."""
    numbered = default_trial_ids(split, responses.stimulus, averages=responses.averages)
    if not shown.names:
        return numbered
    names = ["".join(c if c.isprintable() else "?" for c in name)[:_LONGEST_NAME] for name in shown.names]
    pairs = zip(responses.stimulus, numbered, strict=True)
    named = tuple(f"{split}/{names[int(index)]}/{number.rpartition('/')[2]}" for index, number in pairs)
    return named if len(set(named)) == len(named) else numbered


def _provenance(brain: SimulatedBrain, settings: FmriSettings, seed: int, stimuli: dict[str, Any]) -> dict[str, Any]:
    """How to make the same subject again, without the brain's weights."""
    return {
        "kind": "simulated fMRI",
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "brain": brain.name,
        **brain.provenance,
        "stimuli": stimuli,
        "snr": settings.snr,
        "n_repetitions": {"train": settings.train_repetitions, "test": settings.test_repetitions},
        "settings": asdict(settings),
    }
