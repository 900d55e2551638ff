"""Whether the stimulus is found among others by what was decoded."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Array, FloatArray, check_features
from .identification import check_several, pictures_of

# Equal stimuli give equal cosines but for rounding, and a tie is not a success.
_TIE = 1e-12
_BLOCK = 1024


def n_nearer(
    features_true: Array, features_decoded: Array, stimulus_ids: Sequence[str] | None = None
) -> NDArray[np.int64]:
    """How many other pictures' true features are at least as near to a trial's decoded ones as its own picture's.

    Near is a high cosine, as in the retrieval of MindEye, NICE and ATM.

    Parameters
    ----------
    features_true, features_decoded
        (n, d) floating point, finite, n >= 2 and d >= 2: of each trial's stimulus, and decoded from it.
    stimulus_ids
        Of each trial, the same for trials that showed the same picture; None: each showed another one.

    Returns
    -------
    (n,) int64, from 0 to the number of pictures less one.

    Raises
    ------
    ShapeError, InputError
        For other or unequal shapes, values that are not finite, or a single picture.
    """
    check_features(features_true, features_decoded)
    which, firsts = pictures_of(stimulus_ids, len(features_true))
    check_several("retrieval", len(features_true), len(firsts))
    candidates, queries = _unit(features_true[firsts]), _unit(features_decoded)
    counts = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), _BLOCK):
        rows = slice(start, start + _BLOCK)
        cosines = queries[rows] @ candidates.T
        own = cosines[np.arange(len(cosines)), which[rows]]
        counts[rows] = (cosines >= own[:, None] - _TIE).sum(axis=1) - 1  # its own is among them
    return counts


def top_of(nearer: NDArray[np.int64], n_pictures: int, pool: int, k: int) -> FloatArray:
    """How often a trial's stimulus is among the k nearest of a pool: itself and `pool` - 1 other pictures at random.

    The mean over every pool that could be drawn, which is what drawing many approaches: with r of the N - 1 others
    nearer, the number of nearer ones in a pool is hypergeometric, and what is returned is the chance of fewer than k.

    Parameters
    ----------
    nearer
        Of each trial; see :func:`n_nearer`.
    n_pictures, pool, k
        Pictures in all, in a pool, and how many of the nearest count; 1 <= k <= pool <= n_pictures.

    Returns
    -------
    (n,) float64 in [0, 1]; by chance k / pool.

    Raises
    ------
    InputError
        The numbers do not go together.
    """
    if not 1 <= k <= pool <= n_pictures:
        raise InputError(
            f"the top {k} of {pool} of {n_pictures} pictures was asked for: give 1 <= k <= pool <= pictures"
        )
    others, drawn = n_pictures - 1, pool - 1
    pools = comb(others, drawn)
    chances = {
        r: sum(comb(r, x) * comb(others - r, drawn - x) for x in range(min(k, drawn + 1))) / pools
        for r in set(nearer.tolist())
    }
    return np.array([chances[r] for r in nearer.tolist()])


def _unit(features: Array) -> FloatArray:
    rows: FloatArray = features.astype(np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)
