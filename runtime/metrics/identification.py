"""Two-way identification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Array, FloatArray, Metric, check_features, check_picture_features, check_stimulus_ids

# Numbers of float64 that are held at a time: AlexNet's features of a thousand pictures would be gigabytes.
_MOST = 2**25
_BLOCK = 1024
# Equal stimuli give equal correlations but for rounding, and a tie is not a success.
TIE = 1e-12


def two_way(features_true: Array, features_pred: Array, stimulus_ids: Sequence[str] | None = None) -> FloatArray:
    """How often each prediction is closer to its own truth than another picture's truth is.

    For prediction j, the share of the other pictures i with corr(true_i, pred_j) < corr(true_j, pred_j), strictly;
    chance is 0.5. A picture that several trials showed is no other to any of them, and counts once as another to the
    rest. The direction is that of MindEye's evaluation code (for each prediction against all other ground truths),
    not Takagi and Nishimoto's. A feature vector without variance correlates 0 with all.

    Parameters
    ----------
    features_true, features_pred
        (n, d) floating point, finite, n >= 2 and d >= 2.
    stimulus_ids
        Of each trial, the same for trials that showed the same picture; None: each showed another one.

    Returns
    -------
    (n,) float64 in [0, 1]; where each trial showed another picture its mean is the published score.

    Raises
    ------
    ShapeError, InputError
        For other or unequal shapes, values that are not finite, or a single picture.
    """
    check_features(features_true, features_pred)
    which, firsts = pictures_of(stimulus_ids, len(features_true))
    n_pictures = len(firsts)
    check_several("two-way identification", len(features_true), n_pictures)
    own = own_correlations(features_true, features_pred)
    n_wins = np.zeros(len(own))
    for pictures, rows, correlation in correlations(features_true, firsts, features_pred):
        wins = correlation < own[rows] - TIE
        wins[np.arange(n_pictures)[pictures, None] == which[rows]] = False
        n_wins[rows] += wins.sum(axis=0)
    return n_wins / (n_pictures - 1)


def two_way_crossed(features_true: Array, features_pred: Array) -> FloatArray:
    """:func:`two_way` of every prediction, if its own truth were each of the truths.

    For prediction j and truth i, the share of the truths other than i that are less similar to j than i is. It is not
    a value per pair: what a prediction gets depends on all truths.

    Parameters
    ----------
    features_true
        (n, d) floating point, finite, one row per picture, n >= 2.
    features_pred
        (m, d), of any predictions.

    Returns
    -------
    (n, m) float64 in [0, 1].
    """
    check_picture_features("features_true", features_true)
    check_picture_features("features_pred", features_pred)
    n = len(features_true)
    check_several("two-way identification", n, n)
    similar = np.empty((n, len(features_pred)))
    for pictures, rows, correlation in correlations(features_true, np.arange(n), features_pred):
        similar[pictures, rows] = correlation
    wins = np.empty_like(similar)
    for column, values in enumerate(similar.T):
        wins[:, column] = np.searchsorted(np.sort(values), values - TIE, side="left")
    return wins / (n - 1)


def originals_two_way(
    features_true: Array, features_pred: Array, stimulus_ids: Sequence[str] | None = None
) -> FloatArray:
    """How often each stimulus is closer to its own prediction than to another stimulus's.

    Takagi and Nishimoto's (2023) direction: for truth i, the share of the other pictures j with
    corr(true_i, pred_j) < corr(true_i, pred_i), where the correlations of a picture's several predictions are averaged
    first. All trials of a picture have the same value. Arguments, chance and errors are those of :func:`two_way`.
    """
    check_features(features_true, features_pred)
    which, firsts = pictures_of(stimulus_ids, len(features_true))
    n_pictures = len(firsts)
    check_several("two-way identification", len(features_true), n_pictures)
    sums = np.zeros((n_pictures, n_pictures))  # of truth and predicted picture
    for pictures, rows, correlation in correlations(features_true, firsts, features_pred):
        here = np.arange(n_pictures)
        sums[pictures] += correlation @ (which[rows, None] == here)  # summed over each picture's trials
    means = sums / np.bincount(which)
    wins = means < np.diag(means)[:, None] - TIE
    rates: FloatArray = (wins.sum(axis=1) / (n_pictures - 1))[which]
    return rates


def own_correlations(features_true: Array, features_pred: Array) -> FloatArray:
    """The correlation of each prediction with its own truth, (n,)."""
    parts = _parts(*features_true.shape)
    return np.concatenate(
        [(standardised(features_true[rows]) * standardised(features_pred[rows])).sum(axis=1) for rows in parts]
    )


def correlations(
    features_true: Array, firsts: NDArray[np.intp], features_pred: Array
) -> Iterator[tuple[slice, slice, FloatArray]]:
    """Pictures, trials and the correlations of their truths with their predictions, block by block."""
    width = features_true.shape[1]
    for rows in _parts(len(features_pred), width):
        prediction = standardised(features_pred[rows])
        for pictures in _parts(len(firsts), width):
            yield pictures, rows, standardised(features_true[firsts[pictures]]) @ prediction.T


def _parts(n: int, width: int) -> list[slice]:
    step = int(np.clip(_MOST // width, 1, _BLOCK))
    return [slice(start, start + step) for start in range(0, n, step)]


def check_several(what: str, n_trials: int, n_pictures: int) -> None:
    """Refuse a single picture, which cannot be compared with others."""
    if n_pictures < 2:
        raise InputError(
            f"{what} was given {n_trials} trial(s) of {n_pictures} picture(s), expected at least 2 different pictures: "
            "add trials that showed others"
        )


def pictures_of(stimulus_ids: Sequence[str] | None, n_trials: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The number of each trial's picture, (n_trials,), and one trial of each picture, (n_pictures,)."""
    if stimulus_ids is None:
        return np.arange(n_trials), np.arange(n_trials)
    check_stimulus_ids(stimulus_ids, n_trials)
    number = {name: index for index, name in enumerate(dict.fromkeys(stimulus_ids))}
    which = np.array([number[name] for name in stimulus_ids], np.intp)
    return which, np.unique(which, return_index=True)[1]


def standardised(features: Array) -> FloatArray:
    """Rows of mean 0 and norm 1; rows without variance become 0."""
    rows: FloatArray = features.astype(np.float64)
    scale = np.abs(rows).max(axis=1, keepdims=True)
    rows -= rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    flat = norm <= 1e-14 * scale * rows.shape[1] ** 0.5
    rows /= np.where(flat, 1, norm)
    rows[flat[:, 0]] = 0
    return rows


CLIP_TWO_WAY = Metric(
    name="clip_two_way",
    label="CLIP two-way",
    meaning="How often CLIP picks the picture that was shown over another one; chance is 0.5. The CLIP is this run's "
    "own model folder's, the network stage 2 works with, so read it with care.",
    needs="clip",
    function=two_way,
    range=(0, 1),
    compares_pictures=True,
    min_pictures=2,
    headline=False,
)
