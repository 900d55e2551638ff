"""The importance of regions and the accuracies of windows, pooled over subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ....runtime.metrics.compare import MIN_PICTURES
from ...interpret.sets import interval, random_set_means, resampled_means
from ...interpret.windows import peak
from ..reading import KINDS, LABELS
from ..results import Estimate, Results

Float64 = NDArray[np.float64]
SEED = 0
GROUPS = ("LVC", "HVC")
KIND_LABELS = {"weight": "weights", "pattern": "patterns"}
SIGNALS = {"eeg": "EEG", "meg": "MEG"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """All subjects' voxels.

    Attributes
    ----------
    columns
        "KIND.FEATURE", k of them.
    values : (n_voxels, k)
    inside
        Region -> (n_voxels,) bool, groups first.
    estimates
        (region, column) -> mean over its voxels; `nulls` what 95 % of random sets lie below.
    """

    columns: Sequence[str]
    values: Float64
    inside: Mapping[str, NDArray[np.bool_]]
    estimates: Mapping[tuple[str, str], Estimate]
    nulls: Mapping[tuple[str, str], float]

    @property
    def features(self) -> list[str]:
        return [name.partition(".")[2] for name in self.columns if name.startswith(f"{KINDS[0]}.")]


@lru_cache(maxsize=2)
def regions_of(results: Results) -> Regions | None:
    """The importance of regions, pooled over subjects: every voxel counts once."""
    found = [cells["fmri"] for cells in results.values.values() if "fmri" in cells]
    if not found:
        return None
    columns = [name for name in found[0].columns if name.partition(".")[0] in KINDS]
    columns = [name for name in columns if all(name in one.columns for one in found)]
    values = np.concatenate([np.stack([one.columns[name] for name in columns], axis=1) for one in found])
    subject = np.concatenate([np.full(len(one.pictures), number) for number, one in enumerate(found)])
    names = dict.fromkeys(name[3:] for one in found for name in one.columns if name.startswith("in."))
    ordered = [*(name for name in GROUPS if name in names), *(name for name in names if name not in GROUPS)]
    inside, estimates, nulls = {}, {}, {}
    rng = np.random.default_rng(SEED)
    for name in ordered:
        member = np.concatenate([one.columns.get(f"in.{name}", np.zeros(len(one.pictures))) > 0 for one in found])
        n = int(member.sum())
        inside[name] = member
        low, high = interval(resampled_means(values[member], rng))
        top = np.quantile(random_set_means(values, subject, member, rng), 0.95, axis=0)
        for place, column in enumerate(columns):
            estimates[name, column] = estimate(values[member, place].mean(), low[place], high[place], n)
            nulls[name, column] = float(top[place])
    return Regions(columns=columns, values=values, inside=inside, estimates=estimates, nulls=nulls)


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Of one signal: moments in milliseconds, and of each feature its accuracies and when they are highest."""

    modality: str
    moments: Sequence[float]
    accuracy: Mapping[str, Sequence[Estimate]]
    peak: Mapping[str, Estimate]
    peak_ms: Mapping[str, Estimate]
    chance: float


@lru_cache(maxsize=2)
def curves_of(results: Results) -> tuple[Curves, ...]:
    """The accuracies of windows, pooled over subjects over the moments that all of them have."""
    made = []
    for modality in SIGNALS:
        found = [cells[modality] for cells in results.values.values() if modality in cells]
        if not found:
            continue
        columns = [name for name in found[0].columns if all(name in one.columns for one in found)]
        features = [name.partition(".")[2] for name in columns if name.startswith("peak.")]
        features.sort(key=lambda name: (list(LABELS).index(name.partition(" ")[0]), name))
        moments = [float(name.partition("@")[2]) for name in columns if name.startswith(f"top1.{features[0]}@")]
        accuracy, times = {}, {}
        for feature in features:
            hits = np.stack([results.by_picture(modality, f"top1.{feature}@{ms:g}") for ms in moments])
            ends = interval(resampled_means(hits.T, np.random.default_rng(SEED)))
            n = hits.shape[1]
            accuracy[feature] = [estimate(mean, ends[0, k], ends[1, k], n) for k, mean in enumerate(hits.mean(axis=1))]
            time, low, high = peak(moments, hits, np.random.default_rng(SEED))
            times[feature] = estimate(time, low, high, n)
        made.append(
            Curves(
                modality=modality,
                moments=moments,
                accuracy=accuracy,
                peak={feature: _mean(results, modality, f"peak.{feature}") for feature in features},
                peak_ms=times,
                chance=float(np.mean([one.chance[f"peak.{features[0]}"] for one in found])),
            )
        )
    return tuple(made)


def _mean(results: Results, cell: str, column: str) -> Estimate:
    found = results.mean(cell, column)
    assert found is not None  # all subjects have the column
    return found


def estimate(mean: float, low: float, high: float, n: int) -> Estimate:
    """The estimate of `n` pictures or voxels; without an interval below five."""
    ends = (float(low), float(high)) if n >= MIN_PICTURES else None
    return Estimate(mean=float(mean), ci95=ends, n_pictures=n)
