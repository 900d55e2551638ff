"""The page's part about the figures: verdicts in words, the table of metrics, and the differences drawn."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from . import charts
from .contents import mapping_or_empty, number_or_none
from .words import CONTROL_WORDS, figure, interval, metric_words

Bounds = tuple[float | None, float | None]
VERDICT_METRICS = ("pixcorr", "ssim", "concept_top1")


def verdicts(summary: Mapping[str, Any]) -> str:
    """What stage 2 changed, for up to three metrics, said as the interval allows; nothing where there is none."""
    items = []
    metrics = mapping_or_empty(summary.get("metrics"))
    for name in VERDICT_METRICS:
        entry = mapping_or_empty(metrics.get(name))
        one, two, difference = (number_or_none(entry.get(key)) for key in ("stage1", "stage2", "difference"))
        low, high = _bounds(entry)
        if one is None or two is None or difference is None or low is None or high is None:
            continue
        change = "rises" if low > 0 else "falls" if high < 0 else "shows no clear change"
        label = metric_words(name)[0]
        items.append(
            f'<li><span class="what">{label} {change} in stage 2</span>'
            f'<span class="change">{figure(one)} → {figure(two)}</span>'
            f'<span class="range">difference {figure(difference, signed=True)}, '
            f"95 % interval {interval((low, high))}</span></li>"
        )
    return f'<ul class="verdicts">{"".join(items)}</ul>' if items else ""


def figures_section(summary: Mapping[str, Any]) -> str:
    """The section with the table and the drawings; an empty string where nothing was measured."""
    metrics = {
        name: entry for name, entry in mapping_or_empty(summary.get("metrics")).items() if isinstance(entry, dict)
    }
    if not metrics:
        return ""
    controls = {
        name: mapping_or_empty(mapping_or_empty(summary.get("controls")).get(name))
        for name in CONTROL_WORDS
        if mapping_or_empty(summary.get("controls")).get(name)
    }
    head = "".join(f'<th scope="col" class="group">{CONTROL_WORDS[name][0]}<br>difference</th>' for name in controls)
    rows = "".join(_row(name, entry, controls) for name, entry in metrics.items())
    drawings = "".join(_drawing(name, entry, controls) for name, entry in metrics.items())
    return (
        '<section id="figures" aria-labelledby="figures-title"><h2 id="figures-title">The figures</h2>'
        f'<p class="hint">{_hint(summary, list(controls))}</p>'
        '<div class="table-box" role="region" aria-labelledby="figures-title" tabindex="0"><table class="measures">'
        '<thead><tr><th scope="col">Measure</th><th scope="col">Stage 1</th><th scope="col">Stage 2</th>'
        f'<th scope="col">Difference</th><th scope="col">95 % interval</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        + (f'<div class="forests">{drawings}</div>' if drawings else "")
        + "</section>"
    )


def _hint(summary: Mapping[str, Any], controls: list[str]) -> str:
    words = [
        "Means over trials; for every measure, higher is better. The difference is stage 2 minus stage 1, trial "
        "by trial, with a bootstrap interval over trials."
    ]
    for name in controls:
        label, meaning = CONTROL_WORDS[name]
        words.append(f"{label}: {meaning}.")
    count = summary.get("n_trials")
    entries = mapping_or_empty(summary.get("metrics")).values()
    if all(_bounds(mapping_or_empty(entry)) == (None, None) for entry in entries):
        words.append("There are too few trials for intervals, and so for any claim.")
    elif isinstance(count, int) and count < 30:
        words.append(f"With {count} trials the intervals are wide: this is a demonstration, not a study.")
    return escape(" ".join(words))


def _bounds(entry: Mapping[str, Any]) -> Bounds:
    pair = entry.get("ci95")
    if not isinstance(pair, list) or len(pair) != 2:
        return None, None
    return number_or_none(pair[0]), number_or_none(pair[1])


def _row(name: str, entry: Mapping[str, Any], controls: Mapping[str, Mapping[str, Any]]) -> str:
    label, meaning = metric_words(name)
    one, two, change = (number_or_none(entry.get(key)) for key in ("stage1", "stage2", "difference"))
    cells = [
        f'<td data-label="Stage 1">{figure(one)}</td>',
        f'<td data-label="Stage 2" class="strong">{figure(two)}</td>',
        f'<td data-label="Difference" class="strong">{figure(change, signed=True)}</td>',
        f'<td data-label="95 % interval">{interval(_bounds(entry)) or "–"}</td>',
    ]
    for control, measured in controls.items():
        other = mapping_or_empty(measured.get(name))
        span = interval(_bounds(other))
        cells.append(
            f'<td class="group" data-label="{CONTROL_WORDS[control][0]}"><span>'
            f"{figure(number_or_none(other.get('difference')), signed=True)}"
            + (f"<small>{span}</small>" if span else "")
            + "</span></td>"
        )
    return f'<tr><th scope="row">{label}<small>{meaning}</small></th>{"".join(cells)}</tr>'


def _drawing(name: str, entry: Mapping[str, Any], controls: Mapping[str, Mapping[str, Any]]) -> str:
    sources = [("Decoded", entry)] + [
        (CONTROL_WORDS[control][0], mapping_or_empty(measured.get(name))) for control, measured in controls.items()
    ]
    rows: list[charts.Row] = []
    for label, one in sources:
        difference = number_or_none(one.get("difference"))
        if difference is not None:
            rows.append((label, difference, *_bounds(one)))
    if not rows:
        return ""
    spoken = "; ".join(f"{label} {value:+.3f}" for label, value, _, _ in rows)
    label = metric_words(name)[0]
    drawing = charts.intervals(rows, f"Change in {name}, stage 2 minus stage 1: {spoken}")
    caption = f"<figcaption><strong>{label}</strong>, stage 2 minus stage 1</figcaption>"
    return f'<figure class="panel">{caption}{drawing}</figure>'
