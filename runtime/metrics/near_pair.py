"""Whether a reconstruction is of its stimulus, or of the one that is most like it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Array, FloatArray, Metric, check_features
from .identification import TIE, check_several, correlations, own_correlations, pictures_of


def near_pair(features_true: Array, features_pred: Array, stimulus_ids: Sequence[str] | None = None) -> FloatArray:
    """1 where a prediction is closer to its own truth than to the other picture's whose truth is nearest to that one.

    Two-way identification takes any other picture, most of which are easy; this takes the hardest one. Near is a high
    correlation; a tie is not a success.

    Parameters
    ----------
    features_true, features_pred
        (n, d) floating point, finite, n >= 2 and d >= 2.
    stimulus_ids
        Of each trial, the same for trials that showed the same picture; None: each showed another one.

    Returns
    -------
    (n,) float64 of zeros and ones; chance is 0.5.

    Raises
    ------
    ShapeError, InputError
        For other or unequal shapes, values that are not finite, or a single picture.
    """
    check_features(features_true, features_pred)
    which, firsts = pictures_of(stimulus_ids, len(features_true))
    n_pictures = len(firsts)
    check_several("the near pair", len(features_true), n_pictures)
    nearest = _nearest(features_true, firsts)
    beside = features_true[firsts[nearest]]  # of each picture, the truth of the other
    own, other = own_correlations(features_true, features_pred), own_correlations(beside[which], features_pred)
    return (other < own - TIE).astype(np.float64)


def _nearest(features_true: Array, firsts: Array) -> Array:
    """The number of the picture whose truth is nearest to each picture's, (n_pictures,)."""
    n = len(firsts)
    best, nearest = np.full(n, -np.inf), np.zeros(n, np.intp)
    for rows, columns, correlation in correlations(features_true, firsts, features_true[firsts]):
        here = np.arange(n)
        among = np.where(here[rows, None] == here[None, columns], -np.inf, correlation)
        top, at = among.max(axis=0), among.argmax(axis=0) + rows.start
        better = top > best[columns]
        best[columns] = np.where(better, top, best[columns])
        nearest[columns] = np.where(better, at, nearest[columns])
    return nearest


NEAR_PAIR = Metric(
    name="near_pair",
    label="Near pair",
    meaning="How often the picture is closer to its stimulus than to the other stimulus that is most like that one, by "
    "CLIP ViT-L/14; chance is 0.5.",
    needs="clip_vit_l14",
    function=near_pair,
    range=(0, 1),
    compares_pictures=True,
    min_pictures=2,
    default=False,
)
NEAR_PAIR_OWN = Metric(
    name="near_pair_own",
    label="Near pair, own CLIP",
    meaning="The same by the CLIP of this run's own model folder, the network stage 2 works with: read it with care.",
    needs="clip",
    function=near_pair,
    range=(0, 1),
    compares_pictures=True,
    min_pictures=2,
    headline=False,
    default=False,
)
