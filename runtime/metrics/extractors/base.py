"""What an extractor is, and what a run has for it to work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..base import Array


class Unavailable(Exception):
    """The run lacks what an extractor needs; the message is the end of a sentence for the report's notes."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a run has besides its pictures.

    Attributes
    ----------
    embed
        Images (n, 3, H, W) float32 in [0, 1] -> CLIP embeddings (n, d), or None.
    embed_identity
        Names the weights and the way in which they are computed.
    classifier
        Folder of a classifier of concepts, or None.
    locator
        Folder of a locator of things, or None.
    without_models
        Why there are no models, where there are none: what lacks them says so.
    captions
        Of each trial's stimulus, in the order of the trials; empty where there are none.
    device
        For what an extractor opens by itself.
    weights
        Folder with the weights of published networks, which is looked through before PyTorch's own cache; or None.
    download
        Whether weights that are in neither may be downloaded.
    """

    embed: Callable[[Array], Array] | None = None
    embed_identity: str = ""
    classifier: Path | None = None
    locator: Path | None = None
    without_models: str = ""
    captions: Sequence[Sequence[str]] = ()
    device: str = "cpu"
    weights: Path | None = None
    download: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """An opened extractor.

    Attributes
    ----------
    identity
        Changes with anything that changes the features, so that kept ones are not taken for others.
    of_pictures
        Images (n, 3, H, W) float32 in [0, 1] -> one row per image; None: the images themselves.
    truth
        What is true of each trial, one row each, where that is not the features of its stimulus.
    keep
        Whether the features are kept in the run folder; those that are too large for that are not, and what is
        computed of them is.
    weights
        Name and SHA-256 of each file of weights, for the summary.
    """

    identity: str
    of_pictures: Callable[[Array], Array] | None
    truth: Array | None = None
    keep: bool = True
    weights: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """One kind of features.

    Attributes
    ----------
    name
        What :class:`~minddiffuser.runtime.metrics.base.Metric` calls it in `needs`.
    open
        Opens it for a run, or raises :class:`Unavailable`.
    """

    name: str
    open: Callable[[Given], Features]
