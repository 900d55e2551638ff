"""What the paper says in words, with what was found and the word for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...interpret.sets import interval, resampled_means
from ...interpret.windows import STRUCTURE
from ..reading import KINDS, label_of
from ..results import Estimate, Results
from ..verdicts import AGREES, DISAGREES, UNDECIDED, verdict
from .pooled import GROUPS, SEED, SIGNALS, Curves, Regions, curves_of, estimate, regions_of

_EARLY, _LATE = ("V1", "V2", "V3"), ("VO", "PHC", "MT")
# When the paper says that accuracies peak, in milliseconds.
PEAK_MS = (100.0, 200.0)


def judged(results: Results) -> list[dict[str, Any]]:
    """The paper's sentences on both analyses."""
    regions = regions_of(results)
    made = [] if regions is None else [one for kind in KINDS for one in _on_regions(regions, kind)]
    curves = {one.modality: one for one in curves_of(results)}
    for one in curves.values():
        made += _on_moments(one)
    if {"eeg", "meg"} <= curves.keys():
        column = f"peak.{STRUCTURE}"
        apart = results.difference(("eeg", column), ("meg", column))
        made.append(_claim("the structure peaks higher in MEG than in EEG", "Fig. 9 (e, f)", apart, "pictures"))
    return made


def _on_regions(regions: Regions, kind: str) -> list[dict[str, Any]]:
    place = {name: regions.columns.index(f"{kind}.{name}") for name in regions.features}
    suffix = "" if kind == "weight" else ", by patterns"
    made = []

    def compare(text: str, source: str, features: Sequence[str], more: Any, less: Any) -> None:
        """The mean over `more` minus that over `less`, of a feature or of the first minus the second of two."""
        if not set(features) <= place.keys() or not more.any() or not less.any():
            return
        sign = np.array([1.0, -1.0])[: len(features)]
        own = regions.values[:, [place[name] for name in features]] @ sign
        rng = np.random.default_rng(SEED)
        means = [resampled_means(own[some][:, None], rng)[:, 0] for some in (more, less)]
        low, high = interval(means[0] - means[1])
        n = int(min(more.sum(), less.sum()))
        apart = estimate(own[more].mean() - own[less].mean(), low, high, n)
        made.append(_claim(text + suffix, source, apart, "voxels"))

    none = np.zeros(len(regions.values), bool)
    low, high = (regions.inside.get(name, none) for name in GROUPS)
    early, late = (
        np.logical_or.reduce([regions.inside.get(name, none) for name in names]) for names in (_EARLY, _LATE)
    )
    compare("c is read from HVC more than from LVC", "Fig. 9 (d)", ["context"], high, low)
    compare("the structure is read from LVC more than from HVC", "Fig. 9 (d)", [STRUCTURE], low, high)
    compare(
        "z is read from both alike: LVC leads by less than for the structure",
        "Fig. 9 (d)",
        [STRUCTURE, "latent"],
        low,
        high,
    )
    compare("… and HVC leads by less than for c", "Fig. 9 (d)", ["context", "latent"], high, low)
    compare("c is read from VO, PHC and MT more than from elsewhere", "Fig. 9 (a)", ["context"], late, ~late)
    compare(
        "the structure is read from V1, V2 and V3 more than from elsewhere", "Fig. 9 (b)", [STRUCTURE], early, ~early
    )
    return made


def _on_moments(one: Curves) -> list[dict[str, Any]]:
    signal = SIGNALS[one.modality]
    made = []
    for feature in ("semantic", STRUCTURE):
        if feature not in one.peak:
            continue
        value = one.peak[feature]
        ends = None if value.ci95 is None else (value.ci95[0] - one.chance, value.ci95[1] - one.chance)
        above = Estimate(mean=value.mean - one.chance, ci95=ends, n_pictures=value.n_pictures)
        made.append(
            _claim(f"{signal}: the {label_of(feature)} is found above chance", "section 4.6.2", above, "pictures")
        )
        if made[-1]["agreement"] == DISAGREES:  # no picture is found less often than by chance but by chance
            made[-1]["agreement"] = UNDECIDED
        made.append(_in_time(signal, feature, one.peak_ms[feature]))
    return made


def _in_time(signal: str, feature: str, found: Estimate) -> dict[str, Any]:
    """Agrees where the whole interval lies in the paper's 100 to 200 ms, disagrees where all of it lies outside."""
    word = UNDECIDED
    if found.ci95 is not None:
        low, high = found.ci95
        if PEAK_MS[0] <= low and high <= PEAK_MS[1]:
            word = AGREES
        elif high < PEAK_MS[0] or low > PEAK_MS[1]:
            word = DISAGREES
    ends = "" if found.ci95 is None else f" [{found.ci95[0]:.0f}, {found.ci95[1]:.0f}]"
    return {
        "text": f"{signal}: the {label_of(feature)} peaks between 100 and 200 ms",
        "source": "Fig. 9 (e, f)",
        "found": f"{found.mean:.0f}{ends} ms",
        "milliseconds": found.mean,
        "ci95": None if found.ci95 is None else list(found.ci95),
        "n_pictures": found.n_pictures,
        "agreement": word,
    }


def _claim(text: str, source: str, apart: Estimate | None, unit: str) -> dict[str, Any]:
    assert apart is not None  # both sides are there
    return {
        "text": text,
        "source": source,
        "difference": apart.mean,
        "ci95": None if apart.ci95 is None else list(apart.ci95),
        f"n_{unit}": apart.n_pictures,
        "unit": "",
        "agreement": verdict(1, apart),
    }
