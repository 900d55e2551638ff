"""The distance between a picture's structure and the decoded one (eq. 5), and the semantic term (eq. 6).

Everything here works on numpy arrays and torch tensors alike, and sums in float32 or wider.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ShapeError

# The reference code's boost of its six layers, shallow to deep.
_REFERENCE_BOOST = (1.5, 1.2, 1.0, 1.0, 1.0, 1.0)


def structural_loss(generated: Any, target: Any, mask: Any, layer_weights: Any, *, mean: str = "kept") -> Any:
    """Masked squared error of each trial, summed over layers with weights (eq. 5 of the paper).

    ``loss[i] = sum_l w[l] * mean_d (m[l, d] * (generated[i, l, d] - target[i, l, d])) ** 2``, where d runs over the
    kept dimensions of layer l (``mean="kept"``) or over all of them (``mean="all"``, the reference code: a layer of
    which more was kept weighs more). A layer of which nothing is kept adds nothing.

    Parameters
    ----------
    generated, target : float arrays of shape (n, n_layers, n_tokens, d_vision)
        Finite everywhere, also where the mask is False.
    mask : float or bool array of shape (n_layers, n_tokens, d_vision)
        Same library and device as `generated`.
    layer_weights : float array of shape (n_layers,) or (n, n_layers)
    mean : {"kept", "all"}

    Returns
    -------
    float array of shape (n,), float32 or wider
    """
    error = _wide(generated) - _wide(target)
    squared = (error * mask) ** 2
    totals = squared.sum((-2, -1))
    count = mask.sum((-2, -1)).clip(1) if mean == "kept" else mask.shape[-2] * mask.shape[-1]
    return (totals / count * layer_weights).sum(-1)


def semantic_loss(generated: Any, target: Any) -> Any:
    """Mean squared error of each trial's penultimate CLIP feature (the second term of eq. 6).

    The paper's text says which feature but not which distance; this takes eq. 5's, so that lambda weighs like with
    like. The reference code has 1 - cosine of the output embedding instead.

    Parameters
    ----------
    generated, target : float arrays of shape (n, d)

    Returns
    -------
    float array of shape (n,), float32 or wider
    """
    return ((_wide(generated) - _wide(target)) ** 2).mean(-1)


def weights_of_layers(
    choice: str | tuple[float, ...], target: NDArray[np.floating[Any]], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Compute the weight of each layer in each trial's loss.

    Parameters
    ----------
    choice : "uniform", "reference" or tuple of float
        See :class:`~minddiffuser.runtime.refine.settings.RefineSettings`. "reference" is
        ``(1 / ||m * target_l||) / sum_l (1 / ||m * target_l||)`` times 1.5, 1.2, 1, 1, 1, 1.
    target : float array of shape (n, n_layers, n_tokens, d_vision)
    mask : bool array of shape (n_layers, n_tokens, d_vision)

    Returns
    -------
    float32 array of shape (n, n_layers)

    Raises
    ------
    ShapeError
        Another number of weights than layers.
    InputError
        An unknown name.
    """
    n, n_layers = target.shape[:2]
    if not isinstance(choice, str):
        if len(choice) != n_layers:
            raise ShapeError(f"layer_weights holds {len(choice)} numbers for {n_layers} layers: give one per layer")
        return np.tile(np.asarray(choice, np.float32), (n, 1))
    if choice == "uniform":
        return np.full((n, n_layers), 1 / n_layers, np.float32)
    if choice != "reference":
        raise InputError(f"layer_weights is {choice!r}: give 'uniform', 'reference' or one number per layer")
    if n_layers != len(_REFERENCE_BOOST):
        raise ShapeError(f"layer_weights 'reference' is for 6 layers, the target has {n_layers}: give 'uniform'")
    norms = np.sqrt((np.where(mask, target, 0).astype(np.float64) ** 2).sum((-2, -1)))
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)  # an empty layer weighs nothing
    total = np.maximum(inverse.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(inverse / total * _REFERENCE_BOOST, np.float32)


def _wide(array: Any) -> Any:
    """Give float16 and bfloat16 as float32: their sums over thousands of dimensions overflow or stall."""
    if array.dtype.itemsize >= 4:
        return array
    return array.float() if hasattr(array, "detach") else array.astype(np.float32)
