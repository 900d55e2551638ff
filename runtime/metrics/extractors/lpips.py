"""LPIPS (Zhang et al. 2018) as features: their squared Euclidean distance is the perceptual distance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...environment import versions
from ...errors import FileError
from ...files import sha256_of
from ..base import Array
from .base import Extractor, Features, Given, Unavailable
from .networks.alexnet import WEIGHTS
from .preprocess import FIRST_SIZE, antialiased
from .weights import find_weights, load_into, read_weights

if TYPE_CHECKING:
    import torch

_AT_ONCE = 8
# Of torchvision's AlexNet, the layers of the package's five slices.
_SLICES = (range(2), range(2, 5), range(5, 8), range(8, 10), range(10, 12))


def open_lpips(given: Given) -> Features:
    """Version 0.1 on AlexNet, whose linear weights come with the package; the trunk's are torchvision's.

    The distance is a sum over layers of the mean over places of sum_c w_c (a_c - b_c)^2, with a and b of unit length
    over channels and w not negative: the squared distance of a sqrt(w / places). Pictures are resized to 256 px first.
    """
    try:
        import lpips
    except ModuleNotFoundError as error:
        raise Unavailable(f"{error.name} is not installed (pip install 'minddiffuser[metrics]')") from error
    path = find_weights(WEIGHTS, given)
    linear = Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth"
    model = _model(path)

    def of_pictures(images: Array) -> Array:
        import torch

        network, rows = model.to(given.device), []
        with torch.inference_mode():
            for start in range(0, len(images), _AT_ONCE):
                pixels = antialiased(images[start : start + _AT_ONCE], FIRST_SIZE).to(given.device)
                rows.append(features(network, 2 * pixels - 1).cpu().numpy())
        return np.concatenate(rows)

    digests = {path.name: sha256_of(path), f"lpips/{linear.name}": sha256_of(linear)}
    libraries = versions(("torch", "lpips"))
    return Features(
        identity=f"lpips {sorted(digests.items())} {given.device} {sorted(libraries.items())}",
        of_pictures=of_pictures,
        keep=False,  # 640 thousand numbers a picture
        weights=digests,
    )


def features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """The features of pixels (n, 3, H, W) in [-1, 1], (n, d)."""
    import torch
    from lpips import normalize_tensor

    layers = []
    for layer, weighting in zip(model.net(model.scaling_layer(pixels)), model.lins, strict=True):
        n_places = layer.shape[2] * layer.shape[3]
        scale = (weighting.model[-1].weight / n_places).sqrt()
        layers.append((normalize_tensor(layer) * scale).flatten(1))
    return torch.cat(layers, dim=1)


def _model(path: Path) -> Any:
    import warnings

    import lpips

    with warnings.catch_warnings():  # of how the package calls torchvision
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    if any((weighting.model[-1].weight < 0).any() for weighting in model.lins):
        raise FileError("the weights of the package lpips are not those of version 0.1: install lpips 0.1.4 again")
    state = read_weights(path)
    names = {
        f"slice{1 + number}.{layer}.{kind}": f"features.{layer}.{kind}"
        for number, layers in enumerate(_SLICES)
        for layer in layers
        for kind in ("weight", "bias")
    }
    load_into(model.net, {own: state[theirs] for own, theirs in names.items() if theirs in state}, path)
    return model.eval().requires_grad_(False)


LPIPS = Extractor(name="lpips", open=open_lpips)
