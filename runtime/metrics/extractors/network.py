"""Features of pictures by a published network: one network, three ways of preprocessing, three extractors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...environment import versions
from ...files import sha256_of
from ..base import Array
from .base import Extractor, Features, Given, Unavailable
from .preprocess import IMAGENET, Prepare, aliased, antialiased, pil224
from .weights import WeightsFile, find_weights, load_into, read_weights

if TYPE_CHECKING:
    import torch

_AT_ONCE = 8
# An extractor's name is the network's and one of these; the standard one has none.
PREPARATIONS: dict[str, Prepare] = {"": antialiased, "_aliased": aliased, "_pil224": pil224}


@dataclass(frozen=True, kw_only=True)
class Network:
    """A published network that pictures are compared by.

    Attributes
    ----------
    name
        What metrics call its extractor.
    build
        Makes it, with any weights, so that calling it gives the features (n, ...) of pixels (n, 3, side, side).
    weights
        The published file.
    side
        In pixels, of the pictures that it gets in MindEye's evaluation.
    pixels
        Mean and standard deviation of the three channels of what it was trained on.
    keep
        Whether its features are small enough to be kept in the run folder.
    prefix
        What the names of its tensors in the file begin with.
    find
        Finds the file where that is not as :func:`~.weights.find_weights` does it.
    """

    name: str
    build: Callable[[], torch.nn.Module]
    weights: WeightsFile
    side: int
    pixels: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    keep: bool = True
    prefix: str = ""
    find: Callable[[WeightsFile, Given], Path] = find_weights


def extractors_of(network: Network) -> tuple[Extractor, ...]:
    """One extractor for each way of preprocessing."""
    return tuple(_extractor(network, suffix, prepare) for suffix, prepare in PREPARATIONS.items())


def _extractor(network: Network, suffix: str, prepare: Prepare) -> Extractor:
    def open_network(given: Given) -> Features:
        return _open(network, suffix, prepare, given)

    return Extractor(name=network.name + suffix, open=open_network)


def _open(network: Network, suffix: str, prepare: Prepare, given: Given) -> Features:
    try:
        import torch
        import torchvision  # noqa: F401 (the networks come from it)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed (pip install 'minddiffuser[metrics]')") from error
    path = network.find(network.weights, given)
    digest = sha256_of(path)
    _loaded(network, path, digest)  # a file that is not right is found before anything is computed

    def of_pictures(images: Array) -> Array:
        module = _loaded(network, path, digest).to(given.device)
        mean, spread = (torch.tensor(values, device=given.device)[:, None, None] for values in network.pixels)
        rows = []
        with torch.inference_mode():
            for start in range(0, len(images), _AT_ONCE):
                pixels = prepare(images[start : start + _AT_ONCE], network.side).to(given.device)
                rows.append(module((pixels - mean) / spread).flatten(1).float().cpu().numpy())
        return np.concatenate(rows)

    libraries = versions(("torch", "torchvision", "open_clip_torch", "pillow"))
    return Features(
        identity=f"{network.name}{suffix} {digest} {given.device} {sorted(libraries.items())}",
        of_pictures=of_pictures,
        keep=network.keep,
        weights={path.name: digest},
    )


@lru_cache(maxsize=1)  # one at a time: several would not leave room for the run's own networks
def _loaded(network: Network, path: Path, _digest: str) -> torch.nn.Module:
    import torch

    with torch.device("meta"):  # no time is spent on weights that are replaced
        module = network.build()
    state = {name.removeprefix(network.prefix): value for name, value in read_weights(path).items()}
    load_into(module, state, path)
    return module
