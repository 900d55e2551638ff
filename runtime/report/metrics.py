"""The page's part about the metrics: verdicts in words, the table, and the differences drawn."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ..data.json_types import number_or_none
from ..metrics import METRICS
from . import charts
from .contents import mapping_or_empty
from .words import (
    CONTROL_WORDS,
    FLOOR,
    FLOOR_MEANING,
    NO_CLAIM,
    TOO_FEW,
    WORTH,
    WORTH_MEANING,
    counted,
    direction,
    interval,
    metric_label,
    metric_words,
    number_text,
)

Bounds = tuple[float | None, float | None]
_FEW_PICTURES = 30


def verdicts(summary: Mapping[str, Any]) -> str:
    """What the decoded targets of stage 2 are worth, said as the intervals allow; why nothing is claimed elsewhere.

    Nothing at all where stage 2 was not measured.
    """
    metrics = _entries(summary)
    if all(number_or_none(entry.get("stage2")) is None for entry in metrics.values()):
        return ""
    items = [_verdict(name, metrics[name]) for name, metric in METRICS.items() if metric.headline and name in metrics]
    said = "".join(item for item in items if item is not None)
    if said:
        return f'<ul class="verdicts">{said}</ul>'
    compared = any(mapping_or_empty(entry.get("decoded_minus_shuffled")) for entry in metrics.values())
    return f'<p class="no-claim">{escape(TOO_FEW if compared else NO_CLAIM)}</p>'


def _verdict(name: str, entry: Mapping[str, Any]) -> str | None:
    """One metric's verdict, or None without shuffled targets or intervals."""
    worth = mapping_or_empty(entry.get("decoded_minus_shuffled"))
    gained, two, change = number_or_none(worth.get("difference")), *_numbers(entry, "stage2", "difference")
    if gained is None or two is None or change is None or None in (*_bounds(worth), *_bounds(entry)):
        return None
    moved, apart = _clear(_bounds(entry)), _clear(_bounds(worth))
    moves = {1: "rises", -1: "falls", 0: "shows no clear change"}[moved]
    ends = {1: "and ends above", -1: "and ends below", 0: "and is not clearly different from that with"}[apart]
    label, _ = metric_words(name)
    kind = _kind(name, apart)
    word = {"better": " (better)", "worse": " (worse)"}.get(kind, "")
    if kind == "better" and _kind(name, moved) == "worse":  # the decoded targets spoil less, which is no success
        kind, word = "open", " (worse than stage 1)"
    return (
        f'<li class="{kind}"><span class="what">{label} {moves} in stage 2, {ends} shuffled targets{word}</span>'
        f'<span class="change">{number_text(gained, signed=True)}</span>'
        f'<span class="range">decoded minus shuffled, 95 % interval {interval(_bounds(worth))}</span>'
        f'<span class="range">stage 2 minus stage 1 {number_text(change, signed=True)}, '
        f"95 % interval {interval(_bounds(entry))}</span></li>"
    )


def metrics_section(summary: Mapping[str, Any], *, caveat: str) -> str:
    """The section with the table and the drawings; an empty string where nothing was measured."""
    metrics = _entries(summary)
    if not metrics:
        return ""
    controls = {
        name: mapping_or_empty(mapping_or_empty(summary.get("controls")).get(name))
        for name in CONTROL_WORDS
        if mapping_or_empty(summary.get("controls")).get(name)
    }
    columns = ["Stage 1", "Stage 2", "Difference", "95 % interval"]
    if _has(metrics, "stage1_floor"):
        columns.insert(1, FLOOR)
    if _has(metrics, "decoded_minus_shuffled"):
        columns.append(WORTH)
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    head += "".join(f'<th scope="col" class="group">{CONTROL_WORDS[name][0]}<br>difference</th>' for name in controls)
    rows = "".join(_row(name, entry, columns, controls) for name, entry in metrics.items())
    drawings = "".join(_drawing(name, entry, controls) for name, entry in metrics.items())
    return (
        '<section id="metrics" aria-labelledby="metrics-title"><h2 id="metrics-title">Metrics</h2>'
        f'<p class="hint">{_hint(summary, columns, list(controls), caveat=caveat)}</p>'
        '<div class="table-box" role="region" aria-labelledby="metrics-title" tabindex="0"><table class="measures">'
        f'<thead><tr><th scope="col">Metric</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        + (f'<div class="forests">{drawings}</div>' if drawings else "")
        + _weights(summary)
        + "</section>"
    )


def _weights(summary: Mapping[str, Any]) -> str:
    """Which weights published networks had, as files with their hashes."""
    files: dict[str, str] = {}
    for found in mapping_or_empty(summary.get("extractors")).values():
        files |= {str(name): str(digest) for name, digest in mapping_or_empty(found).items()}
    said = ", ".join(f"{escape(name)} (SHA-256 {escape(digest[:16])}…)" for name, digest in files.items())
    return f'<p class="hint">Weights: {said}.</p>' if said else ""


def _entries(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = mapping_or_empty(summary.get("metrics"))
    return {name: entry for name, entry in found.items() if isinstance(entry, dict)}


def _has(metrics: Mapping[str, Mapping[str, Any]], key: str) -> bool:
    return any(entry.get(key) is not None for entry in metrics.values())


def _numbers(entry: Mapping[str, Any], *keys: str) -> tuple[float | None, ...]:
    return tuple(number_or_none(entry.get(key)) for key in keys)


def _clear(bounds: Bounds) -> int:
    """The sign of a difference whose interval leaves zero out, else 0."""
    low, high = bounds
    if low is None or high is None:
        return 0
    return 1 if low > 0 else -1 if high < 0 else 0


def _kind(name: str, sign: int) -> str:
    return {1: "better", -1: "worse", 0: "open"}[sign * direction(name)]


def _hint(summary: Mapping[str, Any], columns: list[str], controls: list[str], *, caveat: str) -> str:
    metrics = _entries(summary)
    words = [_count(summary), _directions(metrics)]
    words.append("The difference is stage 2 minus stage 1, trial by trial; intervals are bootstrapped over pictures.")
    words += [f"{FLOOR}: {FLOOR_MEANING}."] if FLOOR in columns else []
    words += [f"{WORTH}: {WORTH_MEANING}."] if WORTH in columns else []
    words += [f"{CONTROL_WORDS[name][0]}: {CONTROL_WORDS[name][1]}." for name in controls]
    n_pictures = number_or_none(summary.get("n_pictures"))
    if all(_bounds(entry) == (None, None) for entry in metrics.values()):
        if _has(metrics, "stage2") and not _has(metrics, "decoded_minus_shuffled"):  # else the verdict says so
            words.append("There are too few pictures for intervals, and so for any claim.")
    elif n_pictures is not None and n_pictures < _FEW_PICTURES:
        words.append(f"With {n_pictures:.0f} pictures the intervals are wide: this is a demonstration, not a study.")
    words += [caveat] if caveat else []
    return escape(" ".join(words), quote=False)


def _count(summary: Mapping[str, Any]) -> str:
    n_trials = number_or_none(summary.get("n_measured", summary.get("n_trials")))
    n_pictures = number_or_none(summary.get("n_pictures"))
    if n_trials is None or n_pictures is None:
        return "Means over pictures."
    said = f"Means over {counted(n_pictures, 'picture')} of {counted(n_trials, 'trial')}"
    return f"{said}." if n_pictures >= n_trials else f"{said}: a picture counts once, with the mean of its trials."


def _directions(metrics: Mapping[str, Any]) -> str:
    lower = [metric_label(name) for name in metrics if direction(name) < 0]
    if not lower:
        return "Higher is better."
    if all(direction(name) < 0 for name in metrics):
        return "Lower is better."
    named = " and ".join(part for part in (", ".join(lower[:-1]), lower[-1]) if part)
    return f"Higher is better, except for {named}, of which lower is better."


def _bounds(entry: Mapping[str, Any]) -> Bounds:
    pair = entry.get("ci95")
    if not isinstance(pair, list) or len(pair) != 2:
        return None, None
    return number_or_none(pair[0]), number_or_none(pair[1])


def _row(name: str, entry: Mapping[str, Any], columns: list[str], controls: Mapping[str, Mapping[str, Any]]) -> str:
    label, meaning = metric_words(name)
    one, floor, two, change = _numbers(entry, "stage1", "stage1_floor", "stage2", "difference")
    cells = {
        "Stage 1": (number_text(one), ""),
        FLOOR: (number_text(floor), ""),
        "Stage 2": (number_text(two), "strong"),
        "Difference": (number_text(change, signed=True), "strong"),
        "95 % interval": (interval(_bounds(entry)) or "–", ""),
        WORTH: (_with_interval(mapping_or_empty(entry.get("decoded_minus_shuffled"))), "strong"),
    }
    written = [
        f'<td data-label="{column}"' + (f' class="{cells[column][1]}"' if cells[column][1] else "") + ">"
        f"{cells[column][0]}</td>"
        for column in columns
    ]
    written += [
        f'<td class="group" data-label="{CONTROL_WORDS[control][0]}">'
        f"{_with_interval(mapping_or_empty(measured.get(name)))}</td>"
        for control, measured in controls.items()
    ]
    return f'<tr><th scope="row">{label}<small>{meaning}</small></th>{"".join(written)}</tr>'


def _with_interval(entry: Mapping[str, Any]) -> str:
    span = interval(_bounds(entry))
    value = number_text(number_or_none(entry.get("difference")), signed=True)
    return f"<span>{value}" + (f"<small>{span}</small>" if span else "") + "</span>"


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
    label, _ = metric_words(name)
    spoken = "; ".join(f"{source} {number_text(value, signed=True)}" for source, value, _, _ in rows)
    drawing = charts.intervals(rows, f"Change in {metric_label(name)}, stage 2 minus stage 1: {spoken}")
    note = "; lower is better" if direction(name) < 0 else ""
    caption = f"<figcaption><strong>{label}</strong>, stage 2 minus stage 1{note}</figcaption>"
    return f'<figure class="panel">{caption}{drawing}</figure>'
