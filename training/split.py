"""A split that holds out clusters of similar pictures: ``md-train fit --split clusters``.

The pictures of a data set's test split often have near neighbours in training, and a decoder that has only learned
which cluster a picture is of then looks as if it could reconstruct (Shirakawa et al., arXiv 2405.10078). Here all
pictures, of training and test, are clustered by their CLIP image embeddings; whole clusters are held out; the fit has
no picture of these, and runs of its checkpoint reconstruct those test trials alone whose pictures lie in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import FileError, InputError
from ..runtime.files import hash_of_json, read_tensors, write_tensors
from ..runtime.split import CLUSTERS, Split
from .clusters import drawn_clusters, kmeans
from .concepts import unit
from .datasets.base import Data, picture_digests
from .datasets.chosen import SPLITS, Chosen
from .settings import FitModels, FitSettings, OnProgress, Say, cache_folder

VERSION = 1
"""Of how pictures are clustered."""
_FEWEST = 5  # test pictures: with fewer there is no interval


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """How pictures are clustered and clusters are held out.

    Attributes
    ----------
    n_clusters
        2 or more.
    held_out
        The share of the test pictures that at least lies in the clusters that are held out.
    seed
        Of the starts of k-means and of which clusters are drawn.

    Raises
    ------
    InputError
        A value outside its range.
    """

    n_clusters: int = 20
    held_out: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_clusters < 2:
            raise InputError(f"--n-clusters is {self.n_clusters}: give 2 or more")
        if not 0 < self.held_out < 1:
            raise InputError(f"--held-out is {self.held_out:g}: give a share above 0 and below 1, such as 0.25")
        if self.seed < 0:
            raise InputError(f"--split-seed is {self.seed}: give 0 or more")


def check_split(data: Data, settings: ClusterSettings) -> None:
    """Refuse what can be refused before models are opened.

    Raises
    ------
    InputError
        There are too few pictures for so many clusters, or no test trials.
    """
    shown = {split: len(np.unique(data.stimulus(split))) for split in SPLITS}
    if shown["test"] < 2:
        raise InputError(
            f"--split clusters holds out test pictures, and these data have {shown['test']}: give data with 2 or more"
        )
    if 2 * settings.n_clusters > sum(shown.values()):
        raise InputError(
            f"--n-clusters is {settings.n_clusters} and there are {sum(shown.values())} pictures: give at most half as "
            "many clusters"
        )


def by_clusters(
    data: Data,
    models: FitModels,
    out: Path,
    fit: FitSettings,
    settings: ClusterSettings,
    *,
    progress: OnProgress,
    say: Say,
) -> tuple[Data, Split]:
    """The data without the pictures of clusters that are held out, and what the checkpoint says of them.

    Parameters
    ----------
    data, models, out
        Of the fit. The features' folder keeps the clusters, so that a fit that was stopped goes on with the same.
    fit
        Of it the features' folder and the batch size are taken.
    settings
    progress, say
        As of a fit.

    Returns
    -------
    data : train and test trials alone that are used.
    split : Split

    Raises
    ------
    InputError
        As :func:`check_split`; or no test picture, or too few training pictures are left.
    """
    check_split(data, settings)
    labels = _labels(data, models, out, fit, settings, progress)
    shown = {split: np.unique(data.stimulus(split)) for split in SPLITS}
    rng = np.random.default_rng([settings.seed, settings.n_clusters])
    held_out = drawn_clusters(labels["test"][shown["test"]], settings.held_out, rng)
    if not held_out:
        raise InputError("all test pictures lie in one cluster, which cannot be held out: give a larger --n-clusters")
    near = {split: np.isin(labels[split][data.stimulus(split)], held_out) for split in SPLITS}
    if near["train"].all():
        raise InputError("all training pictures lie in the clusters held out: give a larger --n-clusters")
    trials = {"train": np.flatnonzero(~near["train"]), "test": np.flatnonzero(near["test"])}
    tested = np.unique(data.stimulus("test")[trials["test"]])
    kept = np.unique(data.stimulus("train")[trials["train"]])
    split = Split(
        kind=CLUSTERS,
        n_clusters=settings.n_clusters,
        held_out=tuple(held_out),
        share=settings.held_out,
        seed=settings.seed,
        pictures=tuple(sorted(set(picture_digests(data, "test", tested.tolist())))),
    )
    say(
        f"{len(held_out)} of {settings.n_clusters} clusters are held out: training takes {len(kept)} of "
        f"{len(shown['train'])} pictures, and runs reconstruct {len(tested)} of {len(shown['test'])} test pictures"
    )
    if len(tested) < _FEWEST:
        say(f"{len(tested)} test pictures are too few for intervals: give a larger --held-out")
    parts = {name: {name: rows} for name, rows in trials.items()}
    return cast(Data, Chosen(data, parts["train"], parts["test"])), split


def _labels(
    data: Data, models: FitModels, out: Path, fit: FitSettings, settings: ClusterSettings, progress: OnProgress
) -> dict[str, NDArray[np.int32]]:
    """The cluster of every picture of both splits, kept beside the features."""
    deciding = {
        "version": VERSION,
        "models": models.hash,
        "data": [data.hash(split) for split in SPLITS],
        "shown": [np.unique(data.stimulus(split)).tolist() for split in SPLITS],
        "clusters": [settings.n_clusters, settings.seed],
    }
    path = cache_folder(out, fit) / f"clusters-{hash_of_json(deciding)[:32]}.safetensors"
    kept = _kept(path, {split: data.n_stimuli(split) for split in SPLITS})
    if kept is not None:
        return kept
    places = {
        split: unit(_embeddings(data, split, models, fit.batch_size, partial(progress, f"embeddings of {split}")))
        for split in SPLITS
    }
    shown = {split: np.unique(data.stimulus(split)) for split in SPLITS}
    progress("clusters", 0, 1)
    found = kmeans(
        np.concatenate([places[split][shown[split]] for split in SPLITS]),
        settings.n_clusters,
        np.random.default_rng(settings.seed),
    )
    progress("clusters", 1, 1)
    labels = {split: np.full(data.n_stimuli(split), -1, np.int32) for split in SPLITS}  # what no trial shows is in none
    n_train = len(shown["train"])
    labels["train"][shown["train"]], labels["test"][shown["test"]] = found[:n_train], found[n_train:]
    write_tensors(path, labels)
    return labels


def _kept(path: Path, n_stimuli: Mapping[str, int]) -> dict[str, NDArray[np.int32]] | None:
    try:
        arrays = read_tensors(path, "the clusters")
    except FileError:
        return None
    whole = all(split in arrays and arrays[split].shape == (n,) for split, n in n_stimuli.items())
    return {split: arrays[split] for split in SPLITS} if whole else None


def _embeddings(data: Data, split: str, models: Any, batch_size: int, progress: Any) -> NDArray[np.float32]:
    """CLIP's image embedding of every picture of a split, (n_stimuli, d) float32."""
    import torch

    from ..runtime.images import fit_square, to_float

    total, rows = data.n_stimuli(split), []
    progress(0, total)
    for start in range(0, total, batch_size):
        images = data.images(split, start, min(start + batch_size, total))
        sized = np.stack([fit_square(image, models.image_size) for image in images])
        with torch.no_grad():
            found = models.embedding(torch.from_numpy(to_float(sized)).to(models.device))
        rows.append(found.float().cpu().numpy())
        progress(min(start + batch_size, total), total)
    embeddings: NDArray[np.float32] = np.concatenate(rows)
    return embeddings
