"""Classes shown in blocks, with training and test trials from the same blocks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.concepts import alike
from ...runtime.errors import InputError
from ..datasets.base import Data
from ..datasets.changed import Changed
from ..datasets.chosen import Chosen
from ..leaky import Leaky
from ..settings import FitSettings
from .base import LEAST_PICTURES, SEED, Form, Given

SOURCE = "the older 40-class EEG set in a block design: Li et al. 2021 (IEEE TPAMI 43), arXiv 1812.07697"
WHAT = (
    "responses get a slow drift over a simulated session, of the standard deviation that they have. In the leaky "
    "session each concept is a block of trials, training and test together; in the clean one the order is random"
)
# Independent time courses of the drift.
_N_COURSES = 8
_TRIALS_AT_ONCE = 256

Times = Mapping[str, NDArray[np.intp]]


def check(data: Data, settings: FitSettings) -> None:
    known = {split: {alike(name) for name in data.concepts(split)} for split in ("train", "test")}
    shared = known["train"] & known["test"]
    shown = {alike(data.concepts("test")[number]) for number in np.unique(data.stimulus("test"))} if shared else set()
    if len(shared & shown) < 2 or len(np.unique(_tested(data, shared)[1])) < LEAST_PICTURES:
        raise InputError(
            f"the leak block-design needs two concepts or more that both splits show, in {LEAST_PICTURES} test "
            f"pictures or more, and these data share {len(shared & shown)}: give data that name concepts "
            "(concepts.json) and are not a zero-shot split"
        )


def forms(given: Given) -> tuple[Form, Form]:
    data, rng = given.data, np.random.default_rng(SEED)
    shared = {alike(name) for name in data.concepts("train")}
    test, _ = _tested(data, shared)
    chosen = cast(Data, Chosen(data, {"train": np.arange(len(data.stimulus("train")))}, {"test": test}))
    concepts = {split: _concept_of_trials(chosen, split) for split in ("train", "test")}
    drift = Drift(chosen, rng)
    whole = np.concatenate(list(concepts.values()))
    # Concepts in a random order, and a concept's trials in one too.
    names = rng.permutation(np.unique(whole))
    rank = {name: number for number, name in enumerate(names)}
    shuffled = rng.permutation(len(whole))
    blocked = shuffled[np.argsort([rank[whole[trial]] for trial in shuffled], kind="stable")]
    leaky, clean = (Drifting(chosen, drift, _times(order, len(concepts["train"]))) for order in (blocked, shuffled))
    return Form(data=cast(Data, leaky), leak=Leaky(name="block-design")), Form(data=cast(Data, clean))


def _tested(data: Data, shared: set[str]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Test trials of concepts that training has, and their pictures."""
    concepts, stimulus = data.concepts("test"), data.stimulus("test")
    trials = np.flatnonzero([len(concepts) > 0 and alike(concepts[number]) in shared for number in stimulus])
    return trials, stimulus[trials]


def _concept_of_trials(data: Data, split: str) -> NDArray[Any]:
    return np.array([alike(name) for name in data.concepts(split)])[data.stimulus(split)]


def _times(order: NDArray[np.intp], n_train: int) -> Times:
    """When each trial of a split was shown, as its place in the session, by the trials in their order."""
    when = np.empty(len(order), np.intp)
    when[order] = np.arange(len(order))
    return {"train": when[:n_train], "test": when[n_train:]}


class Drift:
    """A slow drift of all responses: random walks of unit deviation over the session, mixed into every value.

    Of each value the deviation over the session is about that of its training responses.
    """

    def __init__(self, data: Data, rng: np.random.Generator) -> None:
        n_trials = sum(len(data.stimulus(split)) for split in ("train", "test"))
        walks = np.cumsum(rng.standard_normal((n_trials, _N_COURSES)), axis=0)
        self._courses = (walks - walks.mean(axis=0)) / walks.std(axis=0)
        responses = np.asarray(data.responses("train"))
        deviation = responses.std(axis=0, dtype=np.float64)
        mixing = rng.standard_normal((_N_COURSES, *deviation.shape)) / np.sqrt(_N_COURSES)
        self._patterns = mixing * deviation

    def added(self, responses: NDArray[np.float32], times: NDArray[np.intp]) -> NDArray[np.float32]:
        """Responses (n_trials, …) with the drift at their places in the session (n_trials,)."""
        made = np.empty(responses.shape, np.float32)
        for start in range(0, len(made), _TRIALS_AT_ONCE):
            rows = slice(start, start + _TRIALS_AT_ONCE)
            made[rows] = responses[rows] + np.tensordot(self._courses[times[rows]], self._patterns, axes=1)
        return made


class Drifting(Changed):
    """The same data with a drift, for trials that were shown at given times."""

    def __init__(self, data: Data, drift: Drift, times: Times) -> None:
        super().__init__(data)
        self.responses = cache(lambda split: drift.added(data.responses(split), times[split]))
