"""Evidence drawn: each metric on its line from floor to ceiling, in a run's report and on a page over several runs.

It reads evidence.json and cards as they are, with the labels that stand in them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

from ..errors import FileError
from . import charts
from .evidence_words import describe, position_words, split_words
from .words import caveat_of, interval, number_text

_ENDS = ("floor", "oracle")
_HINT = (
    "Each metric on a line from floor to ceiling. Lines beside the marks are 95 % intervals over pictures{seeds}; "
    "the table has the paired differences, the result minus each rung."
)
_SEEDS = ", the thinner ones over seeds and pictures"


def evidence_section(content: Mapping[str, Any]) -> str:
    """The section of a run's report; empty where there is no evidence.

    Raises
    ------
    FileError
        The content is not that of an evidence.json.
    """
    if not content:
        return ""
    try:
        group = {"label": "", **content}
        words = f"Split: {split_words(group['about'])}. {caveat_of(group['about'])}".rstrip()
        return (
            '<section id="evidence" aria-labelledby="evidence-title"><h2 id="evidence-title">Evidence</h2>'
            f'<p class="hint">{_HINT.format(seeds="")} {escape(words)}</p>'
            f"{_panels([group])}{_rungs([group])}{_table(group)}</section>"
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise FileError(
            f"evidence.json of the run is damaged ({error!r:.60}): give the same md-reconstruct run command again"
        ) from error


def card_page(card: Mapping[str, Any]) -> str:
    """The page of a card over several runs, whole."""
    groups = card["groups"]
    seeds = _SEEDS if any(group["about"]["n_runs"] > 1 for group in groups) else ""
    items = "".join(
        f"<li><strong>{escape(str(group['label']))}</strong>: {escape(describe(group))}."
        + "".join(f"<br>{escape(note)}" for note in group["notes"])
        + "</li>"
        for group in groups
    )
    tables = "".join(f"<h3>{escape(str(group['label']))}</h3>{_table(group)}" for group in groups)
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return Template(resources.files(__package__).joinpath("card.html").read_text(encoding="utf-8")).substitute(
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        style=style,
        hint=_HINT.format(seeds=seeds),
        groups=items,
        panels=_panels(groups, headed=True),
        rungs=_rungs(groups),
        tables=tables,
    )


def _panels(groups: Sequence[Mapping[str, Any]], *, headed: bool = False) -> str:
    """A drawing for each metric and group; those of one metric have one axis."""
    written = []
    for metric in dict.fromkeys(name for group in groups for name in group["metrics"]):
        having = [group for group in groups if metric in group["metrics"]]
        marks = [_marks(group, metric) for group in having]
        span = charts.span_of(mark for those in marks for mark in those)
        if span is None:
            continue
        drawn = [_panel(g, metric, those, span, headed=headed) for g, those in zip(having, marks, strict=True)]
        apart = len(groups) > 1  # groups of one metric stand side by side
        written.append(f'<div class="ladders">{"".join(drawn)}</div>' if apart else "".join(drawn))
    body = "".join(written)
    return body if len(groups) > 1 else f'<div class="ladders">{body}</div>'


def _marks(group: Mapping[str, Any], metric: str) -> list[charts.Mark]:
    line = group["metrics"][metric]
    marks = []
    for rung in group["rungs"]:
        entry = line["rungs"].get(rung["name"], {})
        form = "result" if rung["name"] == line["result"] else "end" if rung["name"] in _ENDS else "rung"
        marks.append(
            charts.Mark(
                label=str(rung["label"]),
                value=None if "mean" not in entry else float(entry["mean"]),
                interval=_pair(entry, "ci95"),
                wider=_pair(entry, "ci95_seeds"),
                form=form,
            )
        )
    return marks


def _panel(
    group: Mapping[str, Any],
    metric: str,
    marks: Sequence[charts.Mark],
    span: tuple[float, float],
    *,
    headed: bool,
) -> str:
    line, lower = group["metrics"][metric], group["metrics"][metric]["better"] == "lower"
    spoken = "; ".join(f"{m.label} {'missing' if m.value is None else number_text(m.value)}" for m in marks)
    drawing = charts.ladder(marks, span, f"{line['label']}: {spoken}", lower_is_better=lower)
    label = escape(str(line["label"]))
    named = f"<strong>{label}</strong>" + (f", {escape(str(group['label']))}" if headed else "")
    note = "; lower is better" if lower else ""
    words = position_words(line)
    said = f'<p class="place">{escape(words)}</p>' if words else ""
    return f'<figure class="panel"><figcaption>{named}{note}</figcaption>{drawing}{said}</figure>'


def _rungs(groups: Sequence[Mapping[str, Any]]) -> str:
    """What each rung is, and why it is missing where it is."""
    items = []
    for number, rung in enumerate(groups[0]["rungs"]):
        missing = [
            (f" of {group['label']}" if len(groups) > 1 else "", str(group["rungs"][number]["missing"]))
            for group in groups
            if group["rungs"][number]["missing"]
        ]
        why = "".join(f' <span class="missing">Missing{escape(of)}: {escape(reason)}.</span>' for of, reason in missing)
        items.append(f"<dt>{escape(str(rung['label']))}</dt><dd>{escape(str(rung['meaning']))}.{why}</dd>")
    listed = f"<summary>What the rungs are</summary><dl>{''.join(items)}</dl>"
    return f'<details class="rungs"{_open(groups)}>{listed}</details>'


def _open(groups: Sequence[Mapping[str, Any]]) -> str:
    """Shown at once where a rung is missing: the reason is part of the evidence."""
    return " open" if any(rung["missing"] for group in groups for rung in group["rungs"]) else ""


def _table(group: Mapping[str, Any]) -> str:
    """Paired differences, the result minus each rung."""
    names = [
        rung for rung in group["rungs"] if any(rung["name"] in m["differences"] for m in group["metrics"].values())
    ]
    if not names:
        return ""
    head = "".join(f'<th scope="col">{escape(str(rung["label"]))}</th>' for rung in names)
    rows = []
    for line in group["metrics"].values():
        cells = "".join(_cell(rung, line["differences"].get(rung["name"], {})) for rung in names)
        rows.append(f'<tr><th scope="row">{escape(str(line["label"]))}</th>{cells}</tr>')
    results = {line["result"] for line in group["metrics"].values()}
    of = " or ".join(str(rung["label"]) for rung in group["rungs"] if rung["name"] in results)
    return (
        f'<div class="table-box" role="region" aria-label="Differences" tabindex="0"><table class="measures">'
        f'<thead><tr><th scope="col">{escape(of)} minus …</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(rung: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    label = escape(str(rung["label"]))
    if "difference" not in entry:
        return f'<td data-label="{label}">–</td>'
    spans = [
        (word, interval(pair)) for word, key in (("", "ci95"), ("seeds ", "ci95_seeds")) if (pair := _pair(entry, key))
    ]
    small = "".join(f"<small>{word}{span}</small>" for word, span in spans)
    return f'<td data-label="{label}"><span>{number_text(float(entry["difference"]), signed=True)}{small}</span></td>'


def _pair(entry: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    pair = entry.get(key)
    if pair is None:
        return None
    low, high = pair
    return float(low), float(high)
