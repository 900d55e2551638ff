"""Which structure dimensions can be trusted: Algorithm 1 of the paper.

For each dimension, the correlation between decoded and true values on held-out folds of the training data,
averaged over folds; of each layer, the best k per cent are kept.

Where the reference differs: its selection fits a group lasso whose penalties default to zero, on responses that
were z-scored with the held-out part. Here each fold is decoded by the decoder that stage 2 will use, with the
statistics of that fold's training part, and repetitions of a stimulus never lie on both sides.

Dimensions are fitted and scored a block at a time, so that memory for weights does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import InputError, ShapeError
from .decoders.base import Decoder, FittedDecoder
from .normalise import TargetColumns, fit_normaliser

Array = NDArray[Any]
Float64 = NDArray[np.float64]
Indices = NDArray[np.integer[Any]]
Progress = Callable[[int, int], None]

# Dimensions whose predictions are compared at once.
_DIMENSIONS_AT_ONCE = 512
# Dimensions whose weights are held at once, at least this many and at least this many per voxel. A decoder prepares
# for the responses (the voxels' Gram matrix) once per block: with fewer, that would cost more than the fits; with
# these, a block's weights take a few times that matrix's memory at most.
_BLOCK, _BLOCK_PER_VOXEL = 4096, 4


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """Algorithm 1.

    Attributes
    ----------
    percent : float
        How much of each layer is kept, above 0 to 100.
    absolute : bool
        Rank by the absolute correlation of each fold, as the reference does: dimensions that are decoded with
        the wrong sign then count as well decoded. Signed by default.
    n_folds : int
    n_selected : int, optional
        Voxels per dimension in the folds' decoders; the decoder's own when not given. As many as there are voxels
        makes the folds share one factorisation, which is many times faster.
    seed : int, optional
        Draws stimuli into folds; contiguous folds when not given.
    """

    percent: float = 25.0
    absolute: bool = False
    n_folds: int = 5
    n_selected: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.percent <= 100:
            raise InputError(f"percent is {self.percent}, expected above 0 and at most 100")
        if self.n_folds < 2:
            raise InputError(f"n_folds is {self.n_folds}, expected at least 2")
        if self.n_selected is not None and self.n_selected < 1:
            raise InputError(f"n_selected is {self.n_selected}, expected at least 1 voxel per dimension")


def folds_of(stimulus: Indices, n_folds: int, rng: np.random.Generator | None = None) -> NDArray[np.intp]:
    """Fold of each trial, (n_trials,): K contiguous runs of stimuli in the order of their first trial.

    With one trial per stimulus these are the folds of K-fold cross-validation over trials: the first
    ``n_stimuli % n_folds`` have one more. With `rng`, stimuli are shuffled first.
    """
    _, first, which = np.unique(stimulus, return_index=True, return_inverse=True)
    n_stimuli = len(first)
    if n_stimuli < 2 * n_folds:
        raise InputError(
            f"{n_stimuli} training stimuli cannot be split into {n_folds} folds of 2 or more: "
            "give more training data or fewer folds"
        )
    order = np.argsort(first) if rng is None else rng.permutation(n_stimuli)
    fold = np.empty(n_stimuli, np.intp)
    for number, part in enumerate(np.array_split(order, n_folds)):
        fold[part] = number
    return fold[which]


def correlation(a: Float64, b: Float64) -> Float64:
    """Pearson correlation of matching columns of (n, k) arrays; 0 where a column does not vary."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    norm = np.sqrt(np.einsum("nk,nk->k", a, a) * np.einsum("nk,nk->k", b, b))
    r: Float64 = np.divide(np.einsum("nk,nk->k", a, b), norm, out=np.zeros_like(norm), where=norm > 1e-12 * len(a))
    return r


def cross_validated_correlation(
    responses: Array,
    features: Array,
    stimulus: Indices,
    decoder: Decoder,
    settings: SelectionSettings,
    *,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """How well each dimension is decoded on held-out folds, averaged over folds.

    Parameters
    ----------
    responses : (n_trials, n_voxels)
        Training responses, not normalised.
    features : (n_stimuli, n_dimensions)
        May be mapped from a file; a block of dimensions is read at a time.
    stimulus : (n_trials,) int
        Row of `features` that each trial showed.
    decoder : Decoder
        Fitted anew in each fold, to some thousand dimensions at a time.
    progress : callable, optional
        Receives (dimensions done, dimensions in all folds).

    Returns
    -------
    (n_dimensions,) float32
        In [-1, 1]; in [0, 1] with ``settings.absolute``.

    Notes
    -----
    Memory: one fold's normalised responses, what the decoder needs for them and for one block of dimensions, and
    a few numbers per dimension.
    """
    if responses.ndim != 2 or features.ndim != 2 or stimulus.shape != responses.shape[:1]:
        raise ShapeError(
            f"selection got responses {responses.shape}, features {features.shape}, stimulus {stimulus.shape}: "
            "expected (n_trials, n_voxels), (n_stimuli, n_dimensions), (n_trials,)"
        )
    rng = None if settings.seed is None else np.random.default_rng(settings.seed)
    fold = folds_of(stimulus, settings.n_folds, rng)
    n_dimensions = features.shape[1]
    total = np.zeros(n_dimensions)
    for number in range(settings.n_folds):

        def told(done: int, _of: int, before: int = number * n_dimensions) -> None:
            if progress is not None:
                progress(before + done, settings.n_folds * n_dimensions)

        score = _fold_score(responses, features, stimulus, fold == number, decoder, n_threads, told)
        total += np.abs(score) if settings.absolute else score
    return (total / settings.n_folds).astype(np.float32)


def _fold_score(
    responses: Array,
    features: Array,
    stimulus: Indices,
    held_out: NDArray[np.bool_],
    decoder: Decoder,
    n_threads: int | None,
    progress: Progress,
) -> Float64:
    normaliser = fit_normaliser(responses[~held_out])
    seen, unseen = normaliser(responses[~held_out]), normaliser(responses[held_out])
    n_dimensions = features.shape[1]
    score = np.empty(n_dimensions)
    size = max(_BLOCK, _BLOCK_PER_VOXEL * responses.shape[1])
    for first in range(0, n_dimensions, size):
        block = features[:, first : first + size]

        def told(done: int, _of: int, before: int = first) -> None:
            progress(before + done, n_dimensions)

        everything = np.arange(block.shape[1])
        known = TargetColumns(block, stimulus[~held_out], everything)
        hidden = TargetColumns(block, stimulus[held_out], everything, (known.mean, known.std))
        # Not by a name: one block's weights are gone before the next block's are made.
        score[first : first + size] = _score(
            decoder.fit(seen, known, n_threads=n_threads, progress=told), unseen, hidden
        )
    return score


def _score(fitted: FittedDecoder, unseen: Float64, hidden: TargetColumns) -> Float64:
    score = np.empty(hidden.shape[1])
    for start in range(0, len(score), _DIMENSIONS_AT_ONCE):
        stop = min(start + _DIMENSIONS_AT_ONCE, len(score))
        score[start:stop] = correlation(fitted.predict(unseen, start, stop), hidden.columns(start, stop))
    return score


def best_per_layer(score: NDArray[np.float32], percent: float) -> NDArray[np.bool_]:
    """Mark the best `percent` of each layer of `score` (n_layers, ...), at least one dimension.

    Equal scores are resolved towards the lower position, so that the mask has the same size everywhere.
    """
    flat = score.reshape(len(score), -1)
    n_kept = max(1, round(flat.shape[1] * percent / 100))
    mask = np.zeros(flat.shape, bool)
    best = np.argsort(-flat, axis=1, kind="stable")[:, :n_kept]
    np.put_along_axis(mask, best, True, axis=1)
    return mask.reshape(score.shape)
