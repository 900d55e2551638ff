"""Two-way identification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Array, FloatArray, Metric, check_features, check_stimulus_ids

_BLOCK = 1024
# Equal stimuli give equal correlations but for rounding, and a tie is not a success.
_TIE = 1e-12


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
    which, firsts = _pictures(stimulus_ids, len(features_true))
    n_pictures = len(firsts)
    if n_pictures < 2:
        raise InputError(
            f"two-way identification was given {len(features_true)} trial(s) of {n_pictures} picture(s), expected at "
            "least 2 different pictures: add trials that showed others"
        )
    truth, prediction = _standardised(features_true), _standardised(features_pred)
    rates = np.empty(len(truth))
    for start in range(0, len(truth), _BLOCK):  # bounds the matrix of correlations
        rows = slice(start, start + _BLOCK)
        own = (truth[rows] * prediction[rows]).sum(axis=1)
        wins = truth[firsts] @ prediction[rows].T < own - _TIE
        wins[which[rows], np.arange(len(own))] = False
        rates[rows] = wins.sum(axis=0) / (n_pictures - 1)
    return rates


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
    for features in (features_true, features_pred):
        check_features(features, features)
    truth, prediction = _standardised(features_true), _standardised(features_pred)
    rates = np.empty((len(truth), len(prediction)))
    for start in range(0, len(prediction), _BLOCK):
        similar = truth @ prediction[start : start + _BLOCK].T
        for column, values in enumerate(similar.T, start):
            rates[:, column] = np.searchsorted(np.sort(values), values - _TIE, side="left")
    return rates / (len(truth) - 1)


def _pictures(stimulus_ids: Sequence[str] | None, n_trials: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The number of each trial's picture, (n_trials,), and one trial of each picture, (n_pictures,)."""
    if stimulus_ids is None:
        return np.arange(n_trials), np.arange(n_trials)
    check_stimulus_ids(stimulus_ids, n_trials)
    number = {name: index for index, name in enumerate(dict.fromkeys(stimulus_ids))}
    which = np.array([number[name] for name in stimulus_ids], np.intp)
    return which, np.unique(which, return_index=True)[1]


def _standardised(features: Array) -> FloatArray:
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
    crossed=two_way_crossed,
    range=(0, 1),
    compares_pictures=True,
    min_pictures=2,
    headline=False,
)
