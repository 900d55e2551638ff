"""Repetitions of one picture on both sides of a split."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError
from ..datasets.base import Data, pictures_shown
from ..datasets.chosen import Chosen, Trials
from ..leaky import Leaky
from ..settings import FitSettings
from .base import LEAST_PICTURES, SEED, Form, Given, is_repeated

SOURCE = "16 publications, by arXiv 2508.00531, where it was worth 4.5 to 7.4 points; arXiv 2406.16902"
WHAT = (
    "the last trial of each tested picture is decoded; the fit has learned from its other repetitions, in place of as "
    "many trials of other pictures"
)
# Of the training pictures that were repeated, where test pictures were not: those that are tested.
_SHARE = 0.25


def check(data: Data, settings: FitSettings) -> None:
    _source(data, settings)


def forms(given: Given) -> tuple[Form, Form]:
    data, rng = given.data, np.random.default_rng(SEED)
    split = _source(data, given.settings)
    pictures = pictures_shown(data, split)
    repeated = np.unique(pictures[is_repeated(pictures)])
    if split == "train":
        repeated = rng.permutation(repeated)[: max(LEAST_PICTURES, round(_SHARE * len(repeated)))]
    trials = [np.flatnonzero(pictures == picture) for picture in repeated]
    tested = np.array([rows[-1] for rows in trials])
    others = _by_turns([rows[:-1] for rows in trials])
    base = np.arange(len(data.stimulus("train")))
    if split == "train":
        base = base[~np.isin(pictures, repeated)]
    others = others[: len(base) // 2]
    kept = np.sort(rng.permutation(base)[: len(base) - len(others)])
    leaky = _together({"train": kept}, split, np.sort(others))
    test = {split: tested}
    return (
        Form(data=cast(Data, Chosen(data, leaky, test)), leak=Leaky(name="repetitions")),
        Form(data=cast(Data, Chosen(data, {"train": base}, test))),
    )


def _source(data: Data, settings: FitSettings) -> str:
    """The split whose pictures are tested: where there are enough that were repeated, and can be learned from."""
    direct = "context" in settings.targets
    for split in ("test", "train"):
        pictures = pictures_shown(data, split)
        n_repeated, n_pictures = len(np.unique(pictures[is_repeated(pictures)])), len(np.unique(pictures))
        # Of the train split, others are left to fit to.
        enough = n_repeated >= LEAST_PICTURES and (split == "test" or n_pictures >= 4 * LEAST_PICTURES)
        if enough and (len(data.captions(split)) > 0 or not direct):
            return split
    raise InputError(
        f"the leak repetitions needs {LEAST_PICTURES} pictures or more that were shown more than once, with captions "
        "where the context is decoded directly, and these data have fewer: give data that are not averaged over "
        "repetitions"
    )


def _by_turns(trials: list[NDArray[np.intp]]) -> NDArray[np.intp]:
    """One trial of each picture, then a second one of each, and so on."""
    most = max(map(len, trials))
    return np.array([rows[turn] for turn in range(most) for rows in trials if turn < len(rows)], np.intp)


def _together(trials: Trials, split: str, more: NDArray[np.integer[Any]]) -> Trials:
    return {**trials, split: np.concatenate([trials.get(split, np.empty(0, np.intp)), more])}
