"""Two-way identification."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .base import Array, FloatArray, check_features

_BLOCK = 1024
# Equal stimuli give equal correlations but for rounding, and a tie is not a success.
_TIE = 1e-12


def two_way(features_true: Array, features_pred: Array) -> FloatArray:
    """How often each prediction is closer to its own truth than another truth is.

    For prediction j, the share of the other ground truths i with corr(true_i, pred_j) < corr(true_j, pred_j),
    strictly; chance is 0.5. The direction is that of MindEye's evaluation code (for each prediction against all
    other ground truths), not Takagi and Nishimoto's. A feature vector without variance correlates 0 with all.

    Parameters
    ----------
    features_true, features_pred
        (n, d) floating point, finite, n >= 2 and d >= 2.

    Returns
    -------
    (n,) float64 in [0, 1]; its mean is the published figure.

    Raises
    ------
    ShapeError, InputError
        For other or unequal shapes, values that are not finite, or a single trial.
    """
    check_features(features_true, features_pred)
    n = len(features_true)
    if n < 2:
        raise InputError(f"two-way identification was given {n} trial(s), expected at least 2: add trials")
    truth, prediction = _standardised(features_true), _standardised(features_pred)
    rates = np.empty(n)
    for start in range(0, n, _BLOCK):  # bounds the matrix of correlations
        block = prediction[start : start + _BLOCK]
        correlations = truth @ block.T
        index = np.arange(len(block))
        own = correlations[start + index, index]
        rates[start : start + len(block)] = (correlations < own - _TIE).sum(axis=0) / (n - 1)
    return rates


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
