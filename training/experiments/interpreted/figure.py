"""The figure, bars of regions and curves, and the maps that the page shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...interpret.windows import STRUCTURE
from ..base import Drawing
from ..figure import COLOURS, axes
from ..reading import KINDS, LABELS, heads_path, label_of, map_path
from ..results import Results
from .claims import PEAK_MS
from .pooled import KIND_LABELS, SIGNALS, Curves, Regions, curves_of, regions_of


def draw(results: Results, path: Path) -> None:
    """Bars of regions, weights above patterns, then the curves, one signal below the other."""
    regions, curves = regions_of(results), curves_of(results)
    n_rows = 2 * (regions is not None) + 2 * len(curves)
    with axes(path, 1, size=(11.0, 3.1), n_rows=n_rows) as grid:
        left = list(grid[:, 0])
        if regions is not None:
            for kind in KINDS:
                _bars(left.pop(0), regions, kind)
        for one in curves:
            for layers in (False, True):
                _lines(left.pop(0), one, layers=layers)


def _bars(ax: Any, regions: Regions, kind: str) -> None:
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
    ax.set_title(f"fMRI: {KIND_LABELS[kind]}", loc="left", fontsize=9)
    ax.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _lines(ax: Any, one: Curves, *, layers: bool) -> None:
    for feature, values in one.accuracy.items():
        if (" " in feature) != layers:
            continue
        colour = _colour(feature)
        ax.plot(one.moments, [value.mean for value in values], color=colour, linewidth=1.3, label=label_of(feature))
        ends = [value.ci95 or (value.mean, value.mean) for value in values]
        ax.fill_between(one.moments, *zip(*ends, strict=True), color=colour, alpha=0.12, linewidth=0)
    ax.axhline(one.chance, color="0.4", linestyle="dotted", linewidth=1.2, label="chance")
    ax.axvspan(*PEAK_MS, color="0.5", alpha=0.08, linewidth=0)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("ms after the picture (middle of the window)")
    ax.set_ylabel("top-1 accuracy")
    ax.set_title(
        f"{SIGNALS[one.modality]}{', layers of the structure' if layers else ''}; shaded: 100 to 200 ms",
        loc="left",
        fontsize=9,
    )
    ax.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _colour(feature: str) -> str:
    """Features in colours that anybody tells apart, layers from light to dark."""
    name, _, layer = feature.partition(" ")
    if layer:
        return ("#a6cde3", "#7ab6da", "#4e9acb", "#2f7ab8", "#15559c", "#08306b")[min(int(layer), 6) - 1]
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
            words = KIND_LABELS[kind]
            path = heads_path(subject, kind)
            if path.is_file():
                made.append(
                    Drawing(
                        title=f"{SIGNALS[subject.modality]}: {words} of {subject.label} over the head",
                        caption="Importance of channels relative to an even spread over channels and times, mean over "
                        "windows of 100 ms. White is an even spread; every row has its own scale; nose up. Numbers: "
                        "maps/heads.csv.",
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
