"""Correlation distance."""

from __future__ import annotations

import numpy as np

from .base import Array, FloatArray, check_features, check_picture_features
from .identification import standardised


def correlation_distance(features_true: Array, features_pred: Array) -> FloatArray:
    """1 minus the Pearson correlation of each picture's features with those of its reconstruction.

    As `scipy.spatial.distance.correlation`. Where either is one value throughout, the correlation is undefined and
    counts as 0, a distance of 1.

    Parameters
    ----------
    features_true, features_pred
        (n, d) floating point, finite, d >= 2.

    Returns
    -------
    (n,) float64 in [0, 2].

    Raises
    ------
    ShapeError, InputError
        For other or unequal shapes, or values that are not finite.
    """
    check_features(features_true, features_pred)
    product = (standardised(features_true) * standardised(features_pred)).sum(axis=1)
    distance: FloatArray = 1 - np.clip(product, -1, 1)
    return distance


def correlation_distance_crossed(features_true: Array, features_pred: Array) -> FloatArray:
    """:func:`correlation_distance` of each of n truths and each of m predictions, (n, m) float64."""
    check_picture_features("features_true", features_true)
    check_picture_features("features_pred", features_pred)
    distance: FloatArray = 1 - np.clip(standardised(features_true) @ standardised(features_pred).T, -1, 1)
    return distance


def cosine_distance(features_true: Array, features_pred: Array) -> FloatArray:
    """1 minus the cosine between each picture's features and those of its reconstruction.

    Arguments and errors are those of :func:`correlation_distance`; where either is 0 throughout, the distance is 1.
    """
    check_features(features_true, features_pred)
    truth, found = (rows.astype(np.float64) for rows in (features_true, features_pred))
    norms = np.linalg.norm(truth, axis=1) * np.linalg.norm(found, axis=1)
    cosine = np.divide((truth * found).sum(axis=1), norms, out=np.zeros(len(truth)), where=norms > 0)
    distance: FloatArray = 1 - np.clip(cosine, -1, 1)
    return distance


def squared_distance(features_true: Array, features_pred: Array) -> FloatArray:
    """The squared Euclidean distance of each picture's features from those of its reconstruction.

    Arguments and errors are those of :func:`correlation_distance`.
    """
    check_features(features_true, features_pred)
    differences = features_true.astype(np.float64) - features_pred
    distance: FloatArray = (differences**2).sum(axis=1)
    return distance
