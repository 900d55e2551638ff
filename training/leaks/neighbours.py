"""Near neighbours of the test pictures among those of training."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError
from ..clusters import kmeans
from ..datasets.base import Data
from ..datasets.chosen import Chosen
from ..leaky import Leaky
from ..settings import FitSettings
from .base import LEAST_PICTURES, SEED, Form, Given

SOURCE = "NSD, whose test pictures cluster with the training ones: Shirakawa et al., arXiv 2405.10078v5"
WHAT = (
    "pictures are clustered by CLIP's features; test trials of some clusters are decoded, and only the clean fit has "
    "nothing of these clusters in training. The leaky one lacks as many training pictures of other clusters"
)
_N_CLUSTERS = 8
# Of the test pictures: at least so many are in the clusters that are held out.
_SHARE = 0.25
_LEAST_TRAINING = 20


def check(data: Data, settings: FitSettings) -> None:
    shown = {split: len(np.unique(data.stimulus(split))) for split in ("train", "test")}
    if shown["train"] < _LEAST_TRAINING or shown["test"] < LEAST_PICTURES:
        raise InputError(
            f"the leak neighbours needs {_LEAST_TRAINING} training and {LEAST_PICTURES} test pictures to make clusters "
            f"of, and these data have {shown['train']} and {shown['test']}: give larger data"
        )


def forms(given: Given) -> tuple[Form, Form]:
    data, rng = given.data, np.random.default_rng(SEED)
    stimulus = {split: data.stimulus(split) for split in ("train", "test")}
    clusters = _clusters(*(_places(given, split) for split in ("train", "test")))
    held_out = _held_out(clusters["train"][np.unique(stimulus["train"])], clusters["test"][np.unique(stimulus["test"])])
    near = {split: np.isin(clusters[split][stimulus[split]], held_out) for split in ("train", "test")}
    test = {"test": np.flatnonzero(near["test"])}
    far_pictures = np.unique(stimulus["train"][~near["train"]])
    n_near = min(len(np.unique(stimulus["train"][near["train"]])), len(far_pictures) // 2)
    left_out = rng.permutation(far_pictures)[:n_near]
    leaky = {"train": np.flatnonzero(~np.isin(stimulus["train"], left_out))}
    clean = {"train": np.flatnonzero(~near["train"])}
    return (
        Form(data=cast(Data, Chosen(data, leaky, test)), leak=Leaky(name="neighbours")),
        Form(data=cast(Data, Chosen(data, clean, test))),
    )


def _places(given: Given, split: str) -> NDArray[np.float64]:
    """Where the pictures of a split lie, (n_stimuli, d): their CLIP features, of what is fitted the most semantic."""
    features = given.features(given.data, split)
    name = next(name for name in ("embedding", "semantic", "structure") if name in features)
    return np.asarray(features[name], np.float64).reshape(len(features[name]), -1)


def _clusters(train: NDArray[np.float64], test: NDArray[np.float64]) -> dict[str, NDArray[np.int32]]:
    """The cluster of each picture, by k-means over both splits."""
    found = kmeans(np.concatenate([train, test]), _N_CLUSTERS, np.random.default_rng(SEED))
    return {"train": found[: len(train)], "test": found[len(train) :]}


def _held_out(train: NDArray[np.integer[Any]], test: NDArray[np.integer[Any]]) -> list[int]:
    """Clusters with the most test pictures for their training ones, until they have a quarter of the test pictures.

    Only clusters with training pictures: others have no neighbour to leave out.
    """
    both = [(np.sum(test == one) / np.sum(train == one), int(one)) for one in np.intersect1d(train, test)]
    taken: list[int] = []
    for _, one in sorted(both, reverse=True):
        enough = np.isin(test, taken).sum() >= max(LEAST_PICTURES, _SHARE * len(test))
        if taken and (enough or len(taken) >= len(both) // 2):
            break
        taken.append(one)
    return taken
