"""The tables of a run: means of both stages over pictures, and paired differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from ..errors import InputError
from .base import Array
from .statistics import N_RESAMPLES, paired_bootstrap, picture_means

# The percentile bootstrap of fewer pictures is far too narrow: better no interval than that.
MIN_PICTURES = 5


class Difference(TypedDict):
    """Mean paired difference over pictures and its 95 % interval [low, high], None below `MIN_PICTURES` pictures."""

    difference: float
    ci95: list[float] | None


class Row(TypedDict):
    """One line of the table: means of both stages over pictures, and what :class:`Difference` says of them."""

    stage1: float
    stage2: float
    difference: float
    ci95: list[float] | None


def mean(values: Array, stimulus_ids: Sequence[str] | None = None) -> float:
    """The mean over pictures of their trials' means."""
    return float(picture_means(values, stimulus_ids).mean())


def differences(
    first: Mapping[str, Array],
    second: Mapping[str, Array],
    rng: np.random.Generator,
    *,
    stimulus_ids: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
) -> dict[str, Difference]:
    """Second minus first, metric by metric, with a paired bootstrap over pictures.

    The same resamples of pictures serve every metric, so a metric's interval does not depend on which others were
    computed.

    Parameters
    ----------
    first, second
        Metric name -> (n,) values on the same trials.
    rng
        Source of the resamples; one number is drawn from it.
    stimulus_ids
        Of each trial, the same for trials that showed the same picture; None: each showed another one.
    n_resamples
        Resamples of the bootstrap.

    Raises
    ------
    ShapeError, InputError
        If the two have other metrics or other numbers of trials, or hold values that are not finite.
    """
    if first.keys() != second.keys():
        raise InputError(
            f"the first has the metrics {sorted(first)} and the second {sorted(second)}, expected the same: "
            "compute both with the same arguments"
        )
    seed = int(rng.integers(2**63))
    table: dict[str, Difference] = {}
    for name, values in first.items():
        paired = paired_bootstrap(
            values, second[name], np.random.default_rng(seed), stimulus_ids=stimulus_ids, n_resamples=n_resamples
        )
        enough = len(picture_means(values, stimulus_ids)) >= MIN_PICTURES
        table[name] = {"difference": paired.difference, "ci95": [paired.low, paired.high] if enough else None}
    return table


def summarise(
    stage1: Mapping[str, Array],
    stage2: Mapping[str, Array],
    rng: np.random.Generator,
    *,
    stimulus_ids: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
) -> dict[str, Row]:
    """Compare the two stages; arguments and errors are those of :func:`differences`."""
    changes = differences(stage1, stage2, rng, stimulus_ids=stimulus_ids, n_resamples=n_resamples)
    return {
        name: {
            "stage1": mean(stage1[name], stimulus_ids),
            "stage2": mean(stage2[name], stimulus_ids),
            "difference": change["difference"],
            "ci95": change["ci95"],
        }
        for name, change in changes.items()
    }
