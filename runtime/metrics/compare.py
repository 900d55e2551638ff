"""All metrics for a set of pictures, and the table that compares the two stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypedDict

import numpy as np

from ..errors import InputError, ShapeError
from . import METRICS
from .base import Array, FloatArray, Need, check_labels, check_pictures
from .statistics import N_RESAMPLES, paired_bootstrap

_BATCH = 64
# The percentile bootstrap of fewer images is far too narrow: better no interval than that.
MIN_TRIALS = 5


class Row(TypedDict):
    """One line of the table: means of both stages, their mean difference and its 95 % interval [low, high].

    `ci95` is None below `MIN_TRIALS` trials.
    """

    stage1: float
    stage2: float
    difference: float
    ci95: list[float] | None


def per_trial(
    stimuli: Array,
    pictures: Array,
    *,
    embed: Callable[[Array], Array] | None = None,
    classify: Callable[[Array], Array] | None = None,
    labels: Array | None = None,
) -> dict[str, FloatArray]:
    """Every metric that can be computed from what is given, one value per trial.

    Parameters
    ----------
    stimuli, pictures
        (n, 3, H, W) floating point in [0, 1]: what was seen, and one reconstruction of each.
    embed
        Images (at most 64 at a time) -> embeddings (n, d); without it "clip_two_way" is left out.
    classify, labels
        Images (at most 64 at a time) -> concept labels (n,), and the true labels (n,) integer; without both
        "concept_top1" is left out.

    Returns
    -------
    Metric name -> (n,) float64, in the order of `METRICS`. Two-way identification needs two trials and is left out
    for one.

    Raises
    ------
    ShapeError, InputError
        For pictures, embeddings or labels that the metrics refuse.
    """
    check_pictures(stimuli, pictures)
    inputs: dict[Need, tuple[Array, Array]] = {"images": (stimuli, pictures)}
    if embed is not None:
        inputs["clip"] = _in_batches(embed, stimuli, "embeddings"), _in_batches(embed, pictures, "embeddings")
    if classify is not None and labels is not None:
        predicted = _in_batches(classify, pictures, "labels")
        check_labels(labels, predicted)
        inputs["labels"] = labels, predicted
    return {
        name: metric.function(*inputs[metric.needs])
        for name, metric in METRICS.items()
        if metric.needs in inputs and len(stimuli) >= metric.min_trials
    }


def _in_batches(function: Callable[[Array], Array], images: Array, what: str) -> Array:
    batches = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    results = [np.asarray(function(batch)) for batch in batches]
    for batch, result in zip(batches, results, strict=True):
        if result.shape[:1] != (len(batch),):
            raise ShapeError(f"{what} of {len(batch)} images have shape {result.shape}: return one row per image")
    return np.concatenate(results)


def summarise(
    stage1: Mapping[str, Array],
    stage2: Mapping[str, Array],
    rng: np.random.Generator,
    *,
    n_resamples: int = N_RESAMPLES,
) -> dict[str, Row]:
    """Compare the two stages, metric by metric, with a paired bootstrap over images.

    The same resamples of images serve every metric, so a metric's interval does not depend on which others were
    computed.

    Parameters
    ----------
    stage1, stage2
        Metric name -> (n,) values, from :func:`per_trial` on the same stimuli.
    rng
        Source of the resamples; one number is drawn from it.
    n_resamples
        Resamples of the bootstrap.

    Raises
    ------
    ShapeError, InputError
        If the stages have other metrics or other numbers of trials, or hold values that are not finite.
    """
    if stage1.keys() != stage2.keys():
        raise InputError(
            f"stage 1 has the metrics {sorted(stage1)} and stage 2 {sorted(stage2)}, expected the same: "
            "compute both with the same arguments"
        )
    seed = int(rng.integers(2**63))
    table: dict[str, Row] = {}
    for name, first in stage1.items():
        paired = paired_bootstrap(first, stage2[name], np.random.default_rng(seed), n_resamples=n_resamples)
        table[name] = {
            "stage1": float(np.mean(first)),
            "stage2": float(np.mean(stage2[name])),
            "difference": paired.difference,
            "ci95": [paired.low, paired.high] if len(first) >= MIN_TRIALS else None,
        }
    return table
