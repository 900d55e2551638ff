"""Folds of a cross-validation that keep all trials of one picture together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import InputError

Indices = NDArray[np.integer[Any]]


def folds_of(stimulus: Indices, n_folds: int, rng: np.random.Generator | None = None) -> NDArray[np.intp]:
    """Fold of each trial, (n_trials,): K contiguous runs of stimuli in the order of their first trial.

    `stimulus` numbers the pictures by content, else copies of one lie on both sides. With one trial per stimulus these
    are the folds of K-fold cross-validation over trials: the first ``n_stimuli % n_folds`` have one more. With `rng`,
    stimuli are shuffled first.
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
