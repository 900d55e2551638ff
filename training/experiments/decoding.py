"""How well features are decoded from test trials: each picture's decoded pattern against its true one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.decoders.checkpoint import Checkpoint

Float64 = NDArray[np.float64]
_WHOLE = ("context", "latent", "semantic")


def decoded_patterns(
    checkpoint: Checkpoint,
    responses: NDArray[np.float32],
    true: Any,
    shown: Sequence[str],
    *,
    trusted: NDArray[np.bool_] | None = None,
) -> tuple[dict[str, Float64], dict[str, Float64]]:
    """Pattern correlations of every feature that has a decoder, and of each layer of the structure.

    *Pattern correlation*: of a trial's decoded z-scores (by the training statistics of the feature) with its true ones,
    over the dimensions that are decoded.

    Parameters
    ----------
    checkpoint : Checkpoint
    responses : (n_trials, *response_shape)
        Of good trials.
    true
        Their features: attributes context, latent, structure and semantic, (n_trials, ...) each, or None.
    shown
        The picture of each trial.
    trusted : (6, n_tokens, d_vision) bool, optional
        Dimensions of the structure over which it is taken; those of the checkpoint's mask where not given.

    Returns
    -------
    Feature ("context", "latent", "semantic", "structure", "structure 1" ...) -> (n_trials,): of each trial with its own
    true pattern; and the same with other pictures' true ones, the mean over their trials, which is chance: nothing
    where all trials showed one picture.
    """
    decoded = checkpoint.decode(responses, screened=True)
    own: dict[str, Float64] = {}
    others: dict[str, Float64] = {}
    for name in (*_WHOLE, "structure"):
        given, truth = getattr(decoded, name), getattr(true, name)
        if given is None or truth is None or name not in checkpoint.decoders:
            continue
        positions, a, b = z_scored(checkpoint, name, given, truth)
        parts = {name: np.ones(len(positions), bool)}
        if name == "structure":
            n_layers, *layer = checkpoint.shapes[name]
            kept = checkpoint.mask if trusted is None else trusted & checkpoint.mask
            chosen = kept.ravel()[positions]
            parts = {name: chosen}
            of_layer = positions // int(np.prod(layer))
            parts |= {f"{name} {number + 1}": chosen & (of_layer == number) for number in range(n_layers)}
        for part, columns in parts.items():
            if columns.sum() > 1:
                own[part], by_chance = own_and_others(a[:, columns], b[:, columns], shown)
                if len(set(shown)) > 1:
                    others[part] = by_chance
    return own, others


def z_scored(
    checkpoint: Checkpoint, name: str, decoded: NDArray[Any], true: NDArray[Any]
) -> tuple[NDArray[np.intp], Float64, Float64]:
    """Flat positions that vary in training, and the z-scores of both there, (n_trials, n_positions)."""
    place = checkpoint.decoders[name].placements[name]
    mean, std = place.mean[place.position], place.std[place.position]
    varies = std > 0
    a, b = (
        ((np.asarray(array).reshape(len(array), -1)[:, place.position] - mean)[:, varies] / std[varies]).astype(
            np.float64
        )
        for array in (decoded, true)
    )
    return np.asarray(place.position, np.intp)[varies], a, b


def own_and_others(a: Float64, b: Float64, shown: Sequence[str] | None = None) -> tuple[Float64, Float64]:
    """Correlations of rows of `a` with the same row of `b`, and the mean with its rows of other pictures.

    Parameters
    ----------
    a, b : (n, n_values)
    shown
        The picture of each row; None: each is of another one. The mean is 0 where there is no other picture.
    """
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    table = a @ b.T
    pictures = np.arange(len(table)) if shown is None else np.unique(list(shown), return_inverse=True)[1]
    other = pictures[:, None] != pictures
    return np.diag(table).copy(), (table * other).sum(axis=1) / np.maximum(other.sum(axis=1), 1)


def common_mask(checkpoints: Sequence[Checkpoint]) -> NDArray[np.bool_]:
    """The structure dimensions that all checkpoints trust."""
    common: NDArray[np.bool_] = np.logical_and.reduce([checkpoint.mask for checkpoint in checkpoints])
    return common
