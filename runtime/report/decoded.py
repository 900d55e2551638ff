"""The page's section on decoded features: how well they find the stimulus, and in how many directions they vary."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ..data.json_types import number_or_none
from .contents import mapping_or_empty
from .words import interval, number_text

_HINT = (
    "What was decoded from the brain, before any picture is made of it, against the same features of the stimuli. "
    "Retrieval: how often the stimulus is the nearest, or among the five nearest, of so many pictures, by cosine and "
    "over all choices of the others. Dimension: the participation ratio of the features' covariance over pictures; far "
    "fewer directions than the true features have means that many reconstructions are alike."
)


def decoded_section(summary: Mapping[str, Any]) -> str:
    """The section (HTML); an empty string where nothing of the kind was measured."""
    rows = [
        row
        for feature, entry in mapping_or_empty(summary.get("decoded")).items()
        for row in _rows(str(feature), mapping_or_empty(entry))
    ]
    if not rows:
        return ""
    head = "".join(
        f'<th scope="col">{column}</th>' for column in ("Feature", "Measure", "Value", "Against", "95 % interval")
    )
    return (
        '<section id="decoded" aria-labelledby="decoded-title"><h2 id="decoded-title">Decoded features</h2>'
        f'<p class="hint">{escape(_HINT)}</p>'
        '<div class="table-box" role="region" aria-labelledby="decoded-title" tabindex="0"><table class="measures">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _rows(feature: str, entry: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, one in mapping_or_empty(entry.get("retrieval")).items():
        found = mapping_or_empty(one)
        above = mapping_or_empty(found.get("minus_chance"))
        bounds = above.get("ci95")
        low, high = map(number_or_none, bounds) if isinstance(bounds, list) and len(bounds) == 2 else (None, None)
        against = f"chance {number_text(number_or_none(found.get('chance')))}"
        span = interval((low, high))
        label = str(name).replace("top", "top ").replace("_", " ")
        rows.append(_row(feature, label, found.get("value"), against, f"above chance {span}" if span else "–"))
    sizes = mapping_or_empty(entry.get("dimension"))
    if sizes:
        against = f"true features {number_text(number_or_none(sizes.get('true')))}"
        rows.append(_row(feature, "dimension", sizes.get("decoded"), against, "–"))
    return rows


def _row(feature: str, label: str, value: object, against: str, span: str) -> str:
    cells = {"Measure": label, "Value": number_text(number_or_none(value)), "Against": against, "95 % interval": span}
    written = "".join(f'<td data-label="{column}">{escape(text)}</td>' for column, text in cells.items())
    return f'<tr><th scope="row">{escape(feature)}</th>{written}</tr>'
