"""Whether a classifier names the right thing."""

from __future__ import annotations

import numpy as np

from .base import Array, FloatArray, Metric, check_labels


def concept_top1(true_labels: Array, predicted_labels: Array) -> FloatArray:
    """1 where the classifier's first choice for a picture is the label of its stimulus, else 0.

    Parameters
    ----------
    true_labels, predicted_labels
        (n,) integers.

    Returns
    -------
    (n,) float64 of zeros and ones; its mean is the top-1 accuracy.

    Raises
    ------
    ShapeError
        For another rank or type, or unequal lengths.
    """
    check_labels(true_labels, predicted_labels)
    right: FloatArray = np.equal(true_labels, predicted_labels).astype(np.float64)
    return right


CONCEPT_TOP1 = Metric(
    name="concept_top1",
    label="Concept",
    meaning="How often a separately trained classifier names the object that was shown.",
    needs="labels",
    function=concept_top1,
    range=(0, 1),
)
