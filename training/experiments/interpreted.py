"""What the experiment `interpretation` found: tables, the paper's sentences, the figure and the notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.metrics.compare import MIN_PICTURES
from ..interpret.sets import interval, random_set_means, resampled_means
from ..interpret.topography import has_places
from ..interpret.windows import STRUCTURE, peak
from .base import Drawing, Row
from .figure import COLOURS, axes
from .reading import KINDS, LABELS, heads_path, label_of, map_path, volumes_known
from .results import Estimate, Results
from .table import Column, Entry, Table
from .verdicts import AGREES, DISAGREES, UNDECIDED, verdict

Float64 = NDArray[np.float64]
_SEED = 0
_GROUPS = ("LVC", "HVC")
_EARLY, _LATE = ("V1", "V2", "V3"), ("VO", "PHC", "MT")
_KIND_LABELS = {"weight": "weights", "pattern": "patterns"}
_SIGNALS = {"eeg": "EEG", "meg": "MEG"}
# When the paper says that accuracies peak, in milliseconds.
_PEAK = (100.0, 200.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Regions:
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
def _regions(results: Results) -> _Regions | None:
    """The importance of regions, pooled over subjects: every voxel counts once."""
    found = [cells["fmri"] for cells in results.values.values() if "fmri" in cells]
    if not found:
        return None
    columns = [name for name in found[0].columns if name.partition(".")[0] in KINDS]
    columns = [name for name in columns if all(name in one.columns for one in found)]
    values = np.concatenate([np.stack([one.columns[name] for name in columns], axis=1) for one in found])
    subject = np.concatenate([np.full(len(one.pictures), number) for number, one in enumerate(found)])
    names = dict.fromkeys(name[3:] for one in found for name in one.columns if name.startswith("in."))
    ordered = [*(name for name in _GROUPS if name in names), *(name for name in names if name not in _GROUPS)]
    inside, estimates, nulls = {}, {}, {}
    rng = np.random.default_rng(_SEED)
    for name in ordered:
        member = np.concatenate([one.columns.get(f"in.{name}", np.zeros(len(one.pictures))) > 0 for one in found])
        n = int(member.sum())
        inside[name] = member
        low, high = interval(resampled_means(values[member], rng))
        top = np.quantile(random_set_means(values, subject, member, rng), 0.95, axis=0)
        for place, column in enumerate(columns):
            estimates[name, column] = _estimate(values[member, place].mean(), low[place], high[place], n)
            nulls[name, column] = float(top[place])
    return _Regions(columns=columns, values=values, inside=inside, estimates=estimates, nulls=nulls)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Curves:
    """Of one signal: moments in milliseconds, and of each feature its accuracies and when they are highest."""

    modality: str
    moments: Sequence[float]
    accuracy: Mapping[str, Sequence[Estimate]]
    peak: Mapping[str, Estimate]
    peak_ms: Mapping[str, Estimate]
    chance: float


@lru_cache(maxsize=2)
def _curves(results: Results) -> tuple[_Curves, ...]:
    """The accuracies of windows, pooled over subjects over the moments that all of them have."""
    made = []
    for modality in _SIGNALS:
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
            ends = interval(resampled_means(hits.T, np.random.default_rng(_SEED)))
            n = hits.shape[1]
            accuracy[feature] = [_estimate(mean, *ends[:, k], n) for k, mean in enumerate(hits.mean(axis=1))]
            times[feature] = _estimate(*peak(moments, hits, np.random.default_rng(_SEED)), n)
        made.append(
            _Curves(
                modality=modality,
                moments=moments,
                accuracy=accuracy,
                peak={feature: _mean(results, modality, f"peak.{feature}") for feature in features},
                peak_ms=times,
                chance=float(np.mean([one.chance[f"peak.{features[0]}"] for one in found])),
            )
        )
    return tuple(made)


def _estimate(mean: float, low: float, high: float, n: int) -> Estimate:
    ends = (float(low), float(high)) if n >= MIN_PICTURES else None
    return Estimate(mean=float(mean), ci95=ends, n_pictures=n)


def _mean(results: Results, cell: str, column: str) -> Estimate:
    found = results.mean(cell, column)
    assert found is not None  # all subjects have the column
    return found


def tables(results: Results) -> list[Table]:
    """Regions by weights and by patterns, peaks, and for programs the curves."""
    made = []
    regions, curves = _regions(results), _curves(results)
    if regions is not None:
        for kind in KINDS:
            rows = [Row(key=f"fmri.{name}", label=label_of(name), cell="fmri", kind=kind) for name in regions.features]
            entries = {
                (row.key, region): Entry(
                    value=regions.estimates[region, f"{kind}.{name}"],
                    compared=None,
                    null=regions.nulls[region, f"{kind}.{name}"],
                )
                for row, name in zip(rows, regions.features, strict=True)
                for region in regions.inside
            }
            columns = [Column(name=name, label=name, form=".2f") for name in regions.inside]
            title = f"fMRI: importance of regions by {_KIND_LABELS[kind]}, times an even spread"
            made.append(
                Table(
                    name=f"regions-{kind}",
                    title=title,
                    rows=rows,
                    columns=columns,
                    entries=entries,
                    chance={},
                    unit="voxels",
                )
            )
    if curves:
        made += [_peaks(curves), *map(_whole_curve, curves)]
    return made


def _peaks(curves: Sequence[_Curves]) -> Table:
    columns = [
        Column(name="peak", label="top-1 accuracy at the peak", better="higher"),
        Column(name="peak_ms", label="time of the peak, ms", form=".0f"),
        Column(name="chance", label="chance"),
    ]
    rows, entries = [], {}
    for one in curves:
        for feature, value in one.peak.items():
            row = Row(
                key=f"{one.modality}.{feature}",
                label=f"{_SIGNALS[one.modality]}: {label_of(feature)}",
                cell=one.modality,
                kind="peak",
            )
            rows.append(row)
            level = Estimate(mean=one.chance, ci95=None, n_pictures=value.n_pictures)
            for column, found in (("peak", value), ("peak_ms", one.peak_ms[feature]), ("chance", level)):
                entries[row.key, column] = Entry(value=found, compared=None)
    title = "EEG and MEG: how often the picture is found, and when best"
    return Table(name="peaks", title=title, rows=rows, columns=columns, entries=entries, chance={})


def _whole_curve(one: _Curves) -> Table:
    rows = [
        Row(key=f"{one.modality}.{name}", label=label_of(name), cell=one.modality, kind="top1") for name in one.accuracy
    ]
    columns = [Column(name=f"{ms:g}", label=f"{ms:g} ms", better="higher") for ms in one.moments]
    entries = {
        (row.key, column.name): Entry(value=value, compared=None)
        for row, values in zip(rows, one.accuracy.values(), strict=True)
        for column, value in zip(columns, values, strict=True)
    }
    title = f"{_SIGNALS[one.modality]}: top-1 accuracy of each window, by its middle"
    chance = {column.name: one.chance for column in columns}
    return Table(
        name=f"curves-{one.modality}",
        title=title,
        rows=rows,
        columns=columns,
        entries=entries,
        chance=chance,
        on_page=False,
    )


def judged(results: Results) -> list[dict[str, Any]]:
    """The paper's sentences on both analyses."""
    regions = _regions(results)
    made = [] if regions is None else [one for kind in KINDS for one in _on_regions(regions, kind)]
    curves = {one.modality: one for one in _curves(results)}
    for one in curves.values():
        made += _on_moments(one)
    if {"eeg", "meg"} <= curves.keys():
        column = f"peak.{STRUCTURE}"
        apart = results.difference(("eeg", column), ("meg", column))
        made.append(_claim("the structure peaks higher in MEG than in EEG", "Fig. 9 (e, f)", apart, "pictures"))
    return made


def _on_regions(regions: _Regions, kind: str) -> list[dict[str, Any]]:
    place = {name: regions.columns.index(f"{kind}.{name}") for name in regions.features}
    suffix = "" if kind == "weight" else ", by patterns"
    made = []

    def compare(text: str, source: str, features: Sequence[str], more: Any, less: Any) -> None:
        """The mean over `more` minus that over `less`, of a feature or of the first minus the second of two."""
        if not set(features) <= place.keys() or not more.any() or not less.any():
            return
        sign = np.array([1.0, -1.0])[: len(features)]
        own = regions.values[:, [place[name] for name in features]] @ sign
        rng = np.random.default_rng(_SEED)
        means = [resampled_means(own[some][:, None], rng)[:, 0] for some in (more, less)]
        low, high = interval(means[0] - means[1])
        n = int(min(more.sum(), less.sum()))
        apart = _estimate(own[more].mean() - own[less].mean(), low, high, n)
        made.append(_claim(text + suffix, source, apart, "voxels"))

    none = np.zeros(len(regions.values), bool)
    low, high = (regions.inside.get(name, none) for name in _GROUPS)
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


def _on_moments(one: _Curves) -> list[dict[str, Any]]:
    signal = _SIGNALS[one.modality]
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
        made.append(_in_time(signal, feature, one.peak_ms[feature]))
    return made


def _in_time(signal: str, feature: str, found: Estimate) -> dict[str, Any]:
    """Agrees where the whole interval lies in the paper's 100 to 200 ms, disagrees where all of it lies outside."""
    word = UNDECIDED
    if found.ci95 is not None:
        low, high = found.ci95
        if _PEAK[0] <= low and high <= _PEAK[1]:
            word = AGREES
        elif high < _PEAK[0] or low > _PEAK[1]:
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
        "agreement": verdict(1, apart),
    }


def draw(results: Results, path: Path) -> None:
    """Bars of regions, weights above patterns, then the curves, one signal beside the other."""
    regions, curves = _regions(results), _curves(results)
    n_rows = 2 * (regions is not None) + len(curves)
    with axes(path, 1, size=(11.0, 3.1), n_rows=n_rows) as grid:
        left = list(grid[:, 0])
        if regions is not None:
            for kind in KINDS:
                _bars(left.pop(0), regions, kind)
        for one in curves:
            _lines(left.pop(0), one)


def _bars(ax: Any, regions: _Regions, kind: str) -> None:
    shown = regions.features
    width = 0.84 / len(shown)
    for number, feature in enumerate(shown):
        place = number - (len(shown) - 1) / 2
        xs = np.arange(len(regions.inside)) + place * width
        found = [regions.estimates[region, f"{kind}.{feature}"] for region in regions.inside]
        tops = [regions.nulls[region, f"{kind}.{feature}"] for region in regions.inside]
        ends = [one.ci95 or (one.mean, one.mean) for one in found]
        means = [one.mean for one in found]
        bars = [[m - low for m, (low, _) in zip(means, ends, strict=True)]]
        bars.append([high - m for m, (_, high) in zip(means, ends, strict=True)])
        ax.bar(xs, means, width * 0.92, color=_colour(feature), label=label_of(feature), zorder=2)
        ax.errorbar(xs, means, yerr=np.maximum(bars, 0), fmt="none", ecolor="0.2", elinewidth=0.7, zorder=3)
        ax.hlines(tops, xs - width / 2, xs + width / 2, colors="0.45", linewidth=1.2, zorder=4)
    ax.axhline(1, color="0.4", linewidth=0.8, zorder=1)
    ax.set_xticks(range(len(regions.inside)), list(regions.inside))
    ax.grid(visible=False, axis="x")
    ax.set_ylabel("times an even spread")
    ax.set_title(f"fMRI: {_KIND_LABELS[kind]}", loc="left", fontsize=9)
    ax.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _lines(ax: Any, one: _Curves) -> None:
    for feature, values in one.accuracy.items():
        if feature == STRUCTURE and len(one.accuracy) > 2:  # its layers are there
            continue
        colour = _colour(feature)
        ax.plot(one.moments, [value.mean for value in values], color=colour, linewidth=1.3, label=label_of(feature))
        ends = [value.ci95 or (value.mean, value.mean) for value in values]
        ax.fill_between(one.moments, *zip(*ends, strict=True), color=colour, alpha=0.1, linewidth=0)
    ax.axhline(one.chance, color="0.4", linestyle="dotted", linewidth=1.2, label="chance")
    ax.axvspan(*_PEAK, color="0.5", alpha=0.08, linewidth=0)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("ms after the picture (middle of the window)")
    ax.set_ylabel("top-1 accuracy")
    ax.set_title(f"{_SIGNALS[one.modality]}; shaded: 100 to 200 ms", loc="left", fontsize=9)
    ax.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _colour(feature: str) -> str:
    """Features in colours that anybody tells apart, layers from light to dark."""
    name, _, layer = feature.partition(" ")
    if layer:
        return ("#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08306b")[min(int(layer), 6) - 1]
    return {"context": COLOURS[1], "semantic": COLOURS[4], STRUCTURE: COLOURS[0], "latent": COLOURS[2]}[name]


def drawings(results: Results) -> list[Drawing]:
    """Heads of the first subject of each signal, and surfaces of the first subject of fMRI."""
    made = []
    seen: set[str] = set()
    for subject in results.subjects:
        if subject.modality in seen or not results.values[subject.label]:
            continue
        seen.add(subject.modality)
        for kind in KINDS:
            words = _KIND_LABELS[kind]
            path = heads_path(subject, kind)
            if path.is_file():
                made.append(
                    Drawing(
                        title=f"{_SIGNALS[subject.modality]}: {words} of {subject.label} over the head",
                        caption="Importance of channels relative to an even spread over channels and times, mean over "
                        "windows of 100 ms. White is an even spread; every row has its own scale; nose up. Numbers: maps/heads.csv.",
                        path=path,
                    )
                )
            made += [
                Drawing(
                    title=f"{label_of(name)}: {words} of {subject.label} on the cortex",
                    caption="Times an even spread over the voxels; grey where there are none.",
                    path=path,
                )
                for name in LABELS
                if (path := map_path(subject, f"surface-{kind}.{name}", ".png")).is_file()
            ]
    return made


def notes(results: Results) -> list[str]:
    """What importance is, what intervals are over, what was left out."""
    made = []
    plan = results.plan
    drawn = "all dimensions" if plan.full else "500 dimensions of each feature and layer, drawn by --seed"
    kinds = {subject.modality for subject in results.subjects}
    made.append(
        "Weights are the mean size of the linear decoders' weights, which the paper shows. A weight is large, too, "
        "where a voxel knows nothing and cancels noise that others share; patterns (Haufe et al. 2014) say how a voxel "
        "changes with what is decoded: the mean size of its correlation with it in training, "
        f"over {drawn}. Where the two disagree, a pattern says where the information is, a weight what the decoder "
        "makes use of; where little can be decoded, both follow the noise. Both are divided by their mean over all voxels, or channels and times."
    )
    made.append(
        "Of the structure, the dimensions count that the checkpoint keeps: the best-decoded quarter of each layer."
    )
    if "fmri" in kinds:
        made.append(
            "Decoders of c take 250 voxels of each dimension and those of the structure 350, so that importance also "
            "counts how often a voxel is chosen. That of z takes 4,000: where there are fewer, as in simulated "
            "subjects, it takes all, and its weights are nearly even whatever the voxels know. Read z by its patterns."
        )
        made.append(
            "Regions: every voxel of every subject counts once. Intervals are 95 % of a bootstrap over voxels, which "
            "have neighbours and noise in common: they say how alike a region's voxels are, and nothing of other "
            "subjects or pictures. Random sets: 95 % of a thousand sets of as many voxels of the same subjects, taken "
            "from anywhere, lie below."
        )
    if kinds & {"eeg", "meg"}:
        made.append(
            "Windows: a ridge from all channels and samples of 100 ms, in steps of 25 ms, with its penalty by "
            "cross-validation over training pictures, fitted to the means of each training picture's trials; a "
            "picture is found where its own features, of all test pictures', correlate most with the decoded ones "
            f"({drawn}). The structure is its six layers together. A moment is the middle of a window: it looks 50 ms "
            "ahead and back."
        )
        made.append(
            "The accuracy at the peak is, of each picture, that of the window which is best for all others, so that "
            "the choice of the window adds nothing. The interval of the peak's time is that of the best window over "
            "resamples of the pictures; a sentence on it agrees where the whole interval lies inside 100 to 200 ms and "
            "disagrees where all of it lies outside."
        )
        levels = {round(one.chance, 6) for one in _curves(results)}
        if len(levels) > 1:
            made.append("EEG and MEG have other numbers of test pictures, so their accuracies cannot be compared.")
    for subject in results.subjects:
        if subject.modality == "fmri":
            if not volumes_known(subject):
                made.append(f"{subject.label}: no maps, since the places of its voxels are not known.")
        elif not has_places(subject.data.layout):
            made.append(f"{subject.label}: no maps of the head, since positions of its channels are not known.")
    if len(results.subjects) == 1:
        made.append("One subject: give several data folders (--data A B C) for numbers that do not hang on one.")
    return made
