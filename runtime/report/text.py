"""The table of the metrics as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .words import interval, metric_label, number_text

_HEAD = ("metric", "stage 1", "stage 2", "difference", "95 % interval")


def metrics_table(summary: Mapping[str, Any]) -> str:
    """One line for each metric of summary.json, as `write_summary` gives it; nothing where there is none."""
    rows = [_HEAD]
    for name, entry in summary["metrics"].items():
        change = number_text(entry["difference"], signed=True)
        bounds = interval(tuple(entry["ci95"] or (None, None))) or "–"
        rows.append((metric_label(name), number_text(entry["stage1"]), number_text(entry["stage2"]), change, bounds))
    if len(rows) == 1:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"
