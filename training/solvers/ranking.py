"""Which voxels a target is fitted on: those of the largest |correlation|, of equal ones the lower number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Indices = NDArray[np.intp]

# A threshold is guessed from every so-many-th score, somewhat low, so that few scores have to be sorted.
_SAMPLE_STEP, _GENEROSITY = 8, 1.4


def largest(score: Float64, n: int) -> Indices:
    """Columns of the `n` largest values of each row, ascending; of equal values the lower column is taken."""
    chosen = np.argpartition(score, score.shape[1] - n, axis=1)[:, -n:]
    bar = np.take_along_axis(score, chosen, axis=1).min(axis=1)
    for row in np.flatnonzero((score >= bar[:, None]).sum(axis=1) > n):
        chosen[row] = np.argsort(-score[row], kind="stable")[:n]
    chosen.sort(axis=1)
    return chosen


def largest_of_rough(score: NDArray[Any], n: int, margin: float, exact: Callable[[Indices], Float64]) -> Indices:
    """What :func:`largest` gives of exact scores, from rough ones.

    Parameters
    ----------
    score : (N,)
        Each wrong by at most half of `margin`.
    n : int
        How many to choose, below N.
    exact : callable
        Gives the exact scores (k,) of the positions (k,), ascending, for which the rough ones cannot decide.

    Returns
    -------
    (n,) ascending
    """
    near, values = _above_a_guess(score, n)
    bar = np.partition(values, len(values) - n)[len(values) - n]
    if float(values.min()) >= bar - margin and len(values) < len(score):  # what was left out may count as well
        near, values = np.arange(len(score)), score
    possible = near[values >= bar - margin]
    if len(possible) == n:
        found: NDArray[np.intp] = possible
        return found
    undecided = score[possible] <= bar + margin
    asked = possible[undecided]
    n_sure = len(possible) - len(asked)
    best = asked[np.argsort(-exact(asked), kind="stable")[: n - n_sure]]
    return np.sort(np.concatenate([possible[~undecided], best]))


def _above_a_guess(score: NDArray[Any], n: int) -> tuple[Indices, NDArray[Any]]:
    """Positions and values of more than `n` scores, all those above some threshold."""
    sample = score[::_SAMPLE_STEP]
    wanted = int(_GENEROSITY * n / _SAMPLE_STEP) + 2
    if wanted < len(sample):
        guess = np.partition(sample, len(sample) - wanted)[len(sample) - wanted]
        near = np.flatnonzero(score >= guess)
        if len(near) > n:
            return near, score[near]
    return np.arange(len(score)), score
