"""A card as a table: Markdown for people, CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from ..report.evidence_words import describe, position_words

_COLUMNS = (
    *("group", "metric", "better", "rung", "mean", "low", "high", "low_seeds", "high_seeds"),
    *("result_minus_rung", "minus_low", "minus_high", "minus_low_seeds", "minus_high_seeds"),
    *("position", "position_low", "position_high", "missing"),
)


def csv_of(card: Mapping[str, Any]) -> str:
    """One row for each group, metric and rung, those that are missing too; what there is not is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for group, metric, line, rung in _every(card):
        name = rung["name"]
        mean, minus = line["rungs"].get(name, {}), line["differences"].get(name, {})
        place = mean.get("position") or {}
        writer.writerow(
            [
                *(group["label"], metric, line["better"], name, _number(mean.get("mean"))),
                *_bounds(mean, "ci95"),
                *_bounds(mean, "ci95_seeds"),
                _number(minus.get("difference")),
                *_bounds(minus, "ci95"),
                *_bounds(minus, "ci95_seeds"),
                _number(place.get("value")),
                *_bounds(place, "ci95"),
                rung["missing"] or "",
            ]
        )
    return file.getvalue()


def markdown_of(card: Mapping[str, Any]) -> str:
    """A table for each metric: rungs from floor to ceiling below each other, groups side by side."""
    groups = card["groups"]
    lines = ["# Evidence", ""]
    for group in groups:
        lines += [f"- **{_plain(group['label'])}**: {_plain(describe(group))}"]
        lines += [f"  - {_plain(note)}" for note in group["notes"]]
    for metric in dict.fromkeys(name for group in groups for name in group["metrics"]):
        having = [group for group in groups if metric in group["metrics"]]
        first = having[0]["metrics"][metric]
        lower = ", lower is better" if first["better"] == "lower" else ""
        lines += ["", f"## {_plain(first['label'])}{lower}", ""]
        head = [cell for group in having for cell in (_plain(group["label"]), "result − rung")]
        lines += [_row(["", *head]), _row(["---"] * (1 + len(head)))]
        for number, rung in enumerate(having[0]["rungs"]):
            cells = [cell for group in having for cell in _cells(group, metric, group["rungs"][number])]
            lines.append(_row([_plain(rung["label"]), *cells]))
        places = [(group, position_words(group["metrics"][metric])) for group in having]
        lines += ["", *(f"- {_plain(group['label'])}: {words}" for group, words in places if words)]
    return "\n".join(lines).rstrip() + "\n"


def _every(card: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str, Mapping[str, Any], Mapping[str, Any]]]:
    for group in card["groups"]:
        for metric, line in group["metrics"].items():
            for rung in group["rungs"]:
                yield group, metric, line, rung


def _cells(group: Mapping[str, Any], metric: str, rung: Mapping[str, Any]) -> list[str]:
    line, name = group["metrics"][metric], rung["name"]
    if name not in line["rungs"]:
        return [f"missing: {_plain(rung['missing'] or 'not measured')}", ""]
    mean = line["rungs"][name]
    return [_with_bounds(mean["mean"], mean), _with_bounds(None, line["differences"].get(name, {}))]


def _with_bounds(value: float | None, entry: Mapping[str, Any]) -> str:
    number, signed = (value, "") if value is not None else (entry.get("difference"), "+")
    if number is None:
        return ""
    text = f"{number:{signed}.3f}"
    for key, word in (("ci95", ""), ("ci95_seeds", "seeds ")):
        if entry.get(key):
            text += f" [{word}{entry[key][0]:{signed}.3f}, {entry[key][1]:{signed}.3f}]"
    return text.replace("-", "−")


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(text: object) -> str:
    """A text that Markdown takes as it is, in one cell."""
    return " ".join(str(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _bounds(entry: Mapping[str, Any], key: str) -> list[str]:
    return [_number(value) for value in entry.get(key) or (None, None)]
