"""In how many directions features vary: decoded ones often fall into few (Shirakawa et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from .base import Array, check_picture_features
from .identification import pictures_of


def participation_ratio(features: Array, stimulus_ids: Sequence[str] | None = None) -> float:
    """The participation ratio of the covariance's eigenvalues, (sum l)^2 / sum l^2 (Gao et al. 2017).

    k equal eigenvalues give k. It is computed over pictures, each with the mean of its trials, and is at most their
    number less one.

    Parameters
    ----------
    features
        (n, d) floating point, finite, n >= 2.
    stimulus_ids
        Of each trial, the same for trials that showed the same picture; None: each showed another one.

    Raises
    ------
    ShapeError, InputError
        For another shape, values that are not finite, a single picture, or features that do not vary at all.
    """
    check_picture_features("features", features)
    which, firsts = pictures_of(stimulus_ids, len(features))
    if len(firsts) < 2:
        raise InputError(f"the dimension of features of {len(firsts)} picture was asked for: give at least 2 pictures")
    means = np.zeros((len(firsts), features.shape[1]))
    np.add.at(means, which, features.astype(np.float64))
    means /= np.bincount(which)[:, None]
    means -= means.mean(axis=0)
    gram = means @ means.T  # has the covariance's eigenvalues, but for a factor, and is smaller
    trace = float(np.trace(gram))
    if trace == 0:
        raise InputError("the features do not vary between pictures: their dimension is not defined")
    return trace**2 / float((gram**2).sum())
