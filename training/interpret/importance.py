"""How much each value of a response counts for a feature: the weights of linear decoders, and their patterns.

*Weights* are what the paper shows (section 4.6.1): "the weights at each voxel represent the importance of it in decoding
a specific feature". A large weight may also stand at a voxel that knows nothing and cancels noise that others share;
*patterns* (Haufe et al. 2014, eq. 6) say instead how a voxel changes with what is decoded, and are given beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.decoders.checkpoint import Checkpoint
from ...runtime.decoders.linear import Linear
from ...runtime.errors import InputError

Array = NDArray[Any]
Float64 = NDArray[np.float64]
# Weights looked at together: 32 MB of float64.
_AT_ONCE = 1 << 22
FEATURES = ("embedding", "context", "semantic", "structure", "latent")


def importance(checkpoint: Checkpoint) -> dict[str, Float64]:
    """The mean size of the weights at each value of a response, as a multiple of an even spread.

    Responses and features are z-scored before a decoder is fitted, so that weights of different voxels, and of
    different dimensions, can be compared and averaged. 1 is what each value had if all counted alike.

    Returns
    -------
    dict
        "context", "semantic", "latent", "structure", those that linear decoders give, in the route by concepts
        "embedding" in the place of the context, and "structure 1" to "structure 6" for its layers ->
        (*response_shape) float64 of mean 1.

    Raises
    ------
    InputError
        No decoder is linear.
    """
    found = {}
    for name, decoder, chosen in _parts(checkpoint):
        total, size = np.zeros(_size(checkpoint)), decoder.index.shape[1]
        step = max(1, _AT_ONCE // size)
        for start in range(0, len(chosen), step):
            rows = chosen[start : start + step]
            weight = np.abs(decoder.weight[rows].astype(np.float64))
            total += np.bincount(decoder.index[rows].ravel(), weight.ravel(), minlength=len(total))
        found[name] = _relative(total).reshape(checkpoint.layout.shape)
    return found


def patterns(checkpoint: Checkpoint, scores: Array, *, n_dimensions: int = 500, seed: int = 0) -> dict[str, Float64]:
    """The mean size of each value's pattern: how it changes with what is decoded (Haufe et al. 2014).

    Of one dimension, whose decoder gives y from z-scored responses x, the pattern is cov(x, y) / var(y), in z-scores of
    x per standard deviation of y: a correlation. Values are the mean of its size over dimensions.

    Parameters
    ----------
    checkpoint : Checkpoint
    scores : (n_trials, *response_shape)
        Z-scored training responses.
    n_dimensions
        Dimensions of each feature, and of each layer, drawn by `seed` where there are more.

    Returns
    -------
    dict
        As :func:`importance`, in correlations.
    """
    rows = scores.reshape(len(scores), -1).astype(np.float64)
    x = _unit_columns(rows)
    found = {}
    for name, decoder, chosen in _parts(checkpoint):
        rng = np.random.default_rng([seed, len(chosen)])
        drawn = chosen if len(chosen) <= n_dimensions else np.sort(rng.choice(chosen, n_dimensions, replace=False))
        weight = np.zeros((len(drawn), rows.shape[1]))
        np.put_along_axis(
            weight, decoder.index[drawn].astype(np.intp), decoder.weight[drawn].astype(np.float64), axis=1
        )
        y = _unit_columns(rows @ weight.T)
        found[name] = np.abs(x.T @ y).mean(axis=1).reshape(checkpoint.layout.shape)
    return found


def by_region(values: Array, rois: Mapping[str, Sequence[int]]) -> dict[str, Float64]:
    """The values of each region's voxels: region -> (n_voxels_of_it,), regions without voxels left out."""
    return {name: np.asarray(values, np.float64)[list(voxels)] for name, voxels in rois.items() if len(voxels)}


def _parts(checkpoint: Checkpoint) -> Iterator[tuple[str, Linear, NDArray[np.intp]]]:
    """Name, decoder and predicted dimensions of each linear feature, and of each layer of the structure."""
    linear = {name: one for name in FEATURES if isinstance(one := checkpoint.decoders.get(name), Linear)}
    if not linear:
        raise InputError(
            f"{checkpoint.folder} has no linear decoder, and weights say where a feature is read from only of these: "
            "fit one with --decoder ridge"
        )
    for name, decoder in linear.items():
        everything = np.arange(len(decoder.bias))
        yield name, decoder, everything
        if name == "structure":
            n_layers = decoder.placement.shape[0]
            layer = decoder.placement.position // (int(np.prod(decoder.placement.shape)) // n_layers)
            for number in range(n_layers):
                if (chosen := np.flatnonzero(layer == number)).size:
                    yield f"structure {number + 1}", decoder, chosen


def _size(checkpoint: Checkpoint) -> int:
    return int(np.prod(checkpoint.layout.shape))


def _relative(total: Float64) -> Float64:
    mean = total.mean()
    return total / mean if mean > 0 else np.zeros_like(total)


def _unit_columns(values: Float64) -> Float64:
    """Columns of mean 0 and length 1; those that do not vary become 0."""
    centred = values - values.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    out: Float64 = centred / np.where(length > 0, length, 1)
    return out
