"""How much each value of a response counts for a feature: the weights of linear decoders, and their patterns.

*Weights* are what the paper shows (section 4.6.1): "the weights at each voxel represent the importance of it in
decoding a specific feature". A large weight may also stand at a voxel that knows nothing and cancels noise that others
share; *patterns* (Haufe et al. 2014, eq. 6) say how a voxel changes with what is decoded, and are given beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        found[name] = relative(total).reshape(checkpoint.layout.shape)
    return found


def patterns(
    checkpoint: Checkpoint, scores: Array, *, n_dimensions: int | None = 500, seed: int = 0
) -> dict[str, Float64]:
    """The mean size of each value's pattern: how it changes with what is decoded (Haufe et al. 2014).

    Of one dimension, whose decoder gives y from z-scored responses x, the pattern is cov(x, y) / var(y), in z-scores of
    x per standard deviation of y: a correlation. Values are the mean of its size over dimensions.

    Parameters
    ----------
    checkpoint : Checkpoint
    scores : (n_trials, *response_shape)
        Z-scored training responses.
    n_dimensions
        Dimensions of each feature, and of each layer, drawn by `seed` where there are more; None: all.

    Returns
    -------
    dict
        As :func:`importance`, in correlations.
    """
    rows = scores.reshape(len(scores), -1)
    found = {}
    for name, decoder, chosen in _parts(checkpoint):
        rng = np.random.default_rng([seed, len(chosen)])
        drawn = chosen
        if n_dimensions is not None and len(chosen) > n_dimensions:
            drawn = np.sort(rng.choice(chosen, n_dimensions, replace=False))
        total, step = np.zeros(rows.shape[1]), max(1, _AT_ONCE // rows.shape[1])
        for start in range(0, len(drawn), step):
            total += _pattern_sizes(rows, decoder, drawn[start : start + step])
        found[name] = (total / max(len(drawn), 1)).reshape(checkpoint.layout.shape)
    return found


def _pattern_sizes(rows: Array, decoder: Linear, dimensions: NDArray[np.intp]) -> Float64:
    """The sum over some dimensions of the size of each value's pattern, (n_values,)."""
    weight = np.zeros((len(dimensions), rows.shape[1]), np.float32)
    np.put_along_axis(weight, decoder.index[dimensions].astype(np.intp), decoder.weight[dimensions], axis=1)
    n_values = rows.shape[1]
    step = max(1, _AT_ONCE // len(rows))
    parts = [slice(start, min(start + step, n_values)) for start in range(0, n_values, step)]
    decoded = np.zeros((len(rows), len(dimensions)))
    for part in parts:
        decoded += np.asarray(rows[:, part], np.float64) @ weight[:, part].T
    y = _unit_columns(decoded)
    sizes = [np.abs(_unit_columns(np.asarray(rows[:, part], np.float64)).T @ y).sum(axis=1) for part in parts]
    return np.concatenate(sizes)


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


def relative(values: Array) -> Float64:
    """Values as multiples of their mean, that is of an even spread."""
    given = np.asarray(values, np.float64)
    mean = given.mean()
    return given / mean if mean > 0 else np.zeros_like(given)


def _unit_columns(values: Float64) -> Float64:
    """Columns of mean 0 and length 1; those that do not vary become 0."""
    centred = values - values.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    out: Float64 = centred / np.where(length > 0, length, 1)
    return out
