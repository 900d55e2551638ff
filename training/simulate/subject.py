"""One simulated subject, from pictures to a data folder; features are streamed, never held together."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.data.destination import check_target, claimed
from ...runtime.data.folder import DataFolder, SplitData, write_claimed
from ...runtime.data.trial_ids import default_trial_ids
from ...runtime.errors import InputError
from ...runtime.images import cut_by_squares, list_pictures, read_image
from .brains.base import SimulatedBrain
from .fmri import FmriSettings, Responses, simulate_fmri
from .shown import Shown, Squares, rendered

GENERATOR_VERSION = 2
_LONGEST_NAME = 150

OnProgress = Callable[[str, int, int], None]


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
    cut = check_subject(out, showing, seed=seed, replace=replace)
    train_seed, test_seed, brain_seed, noise_seed = np.random.SeedSequence(seed).spawn(4)
    train = rendered(train_seed, showing.n_train, brain.image_size, combinations="seen")
    if showing.stimuli is None:
        test = rendered(test_seed, showing.n_test, brain.image_size, combinations="all")
        source = ["tiny world"]
    else:
        paths = list_pictures(showing.stimuli)
        source = [os.fsencode(path.name).decode(errors="replace") for path in paths]
        test = Shown(Squares(paths, brain.image_size), [], source)
    brain_rng, noise_rng = np.random.default_rng(brain_seed), np.random.default_rng(noise_seed)
    with claimed(out, replace=replace):
        looked = brain.look(train, test, settings, brain_rng, progress or _in_silence)
        drives = {"train": looked.train, "test": looked.test}
        responses = simulate_fmri(looked.share, drives, settings, noise_rng)
        return write_claimed(
            out,
            {"train": _split("train", responses["train"], train), "test": _split("test", responses["test"], test)},
            subject=f"simulated-{seed}",
            rois={**settings.rois, **settings.groups},
            provenance=_provenance(brain, settings, seed, {"train": ["tiny world"], "test": source, "note": cut}),
        )


def check_subject(out: Path | str, showing: Showing, *, seed: int, replace: bool = False) -> str | None:
    """Check the settings, the output folder and the pictures before any model is opened.

    Returns
    -------
    What is cut off the shown pictures, in one sentence, or None.

    Raises
    ------
    InputError, FileError
        As :func:`simulate_subject`.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}: give a seed of at least 0")
    check_target(out, replace=replace)
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


def _in_silence(phase: str, done: int, total: int) -> None:
    """No progress is reported."""
