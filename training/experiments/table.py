"""The result as a table: entries with intervals and the paper's numbers beside them, as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.metrics import METRICS
from .base import Row
from .paper import Number, PaperTable
from .results import GAIN, Estimate, Results
from .verdicts import direction, number_text, of_row, verdict

DECODED = "decoded"
# The paper's CLIP metric has ViT-L/14; without its weights, that of the models' own CLIP stands in for it.
_STANDS_FOR = {"clip_two_way": "clip_vit_l14"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row's value of one column.

    Attributes
    ----------
    value
        The mean; of a row of gains, per cent.
    compared
        What the direction is judged by: the difference from the row that it stands against, or the gain.
    paper
        The paper's number.
    word
        Whether it agrees; see :mod:`.verdicts`.
    null
        What would be exceeded by chance once in twenty times.
    """

    value: Estimate
    compared: Estimate | None
    paper: Number | None = None
    word: str | None = None
    null: float | None = None


@dataclass(frozen=True, kw_only=True)
class Column:
    """What a column holds, such as a metric or a feature that is decoded.

    Attributes
    ----------
    name, label
        For programs and for people.
    better
        "higher", "lower", or "" where neither is.
    form
        How a number is written, such as ".3f".
    """

    name: str
    label: str
    better: str = ""
    form: str = ".3f"

    @property
    def heading(self) -> str:
        arrow = {"higher": " ↑", "lower": " ↓"}.get(self.better, "")
        return f"{self.label}{arrow}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """A table of the result.

    Attributes
    ----------
    name
        "pictures" or "decoded".
    title
        For people.
    rows, columns
        In their order.
    entries
        (row's key, column's name) -> entry, those there are.
    chance
        Column's name -> what it would be without information, the mean over the rows' cells; where that is known.
    unit
        What means and intervals are taken over.
    on_page
        Whether people see it, or programs alone.
    """

    name: str
    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    entries: dict[tuple[str, str], Entry]
    chance: dict[str, float]
    unit: str = "pictures"
    on_page: bool = True

    def word(self, row: Row) -> str | None:
        """Whether a row agrees with the paper, over its metrics."""
        found = [self.entries.get((row.key, column.name)) for column in self.columns]
        return of_row([entry.word for entry in found if entry is not None])


def tables_of(results: Results, paper: PaperTable | None, title: str, *, decoded: bool) -> list[Table]:
    """The table of the pictures, and that of the decoded features where it is `decoded`."""
    rows = results.rows
    by_key = {row.key: row for row in rows}
    metrics = [
        Column(name=name, label=METRICS[name].label, better=METRICS[name].better) for name in results.metrics(rows)
    ]
    made = [_table(paper, results, "pictures", title, rows, metrics, by_key)]
    if decoded:
        cells: dict[str, Row] = {}
        for row in rows:  # rows of one cell have one decoder
            cells.setdefault(row.cell, row)
        features = [
            Column(name=f"decoded.{name}", label=name, better="higher")
            for name in results.features(list(cells.values()))
        ]
        title = "How well features are decoded: correlation of each test picture's decoded pattern with its true one"
        made.append(_table(paper, results, DECODED, title, list(cells.values()), features, by_key))
    return made


def _table(
    paper: PaperTable | None,
    results: Results,
    name: str,
    title: str,
    rows: Sequence[Row],
    columns: Sequence[Column],
    by_key: dict[str, Row],
) -> Table:
    entries = {}
    for row in rows:
        for column in columns:
            value = results.estimate(row, column.name)
            if value is not None:
                entries[row.key, column.name] = _entry(paper, results, row, column.name, value, by_key)
    there = [column for column in columns if any((row.key, column.name) in entries for row in rows)]
    chance = {}
    for column in there if not any(row.kind == GAIN for row in rows) or name == DECODED else ():
        known = [level for row in rows if (level := results.chance(row.cell, column.name)) is not None]
        if known:
            chance[column.name] = sum(known) / len(known)
    return Table(name=name, title=title, rows=rows, columns=there, entries=entries, chance=chance)


def _entry(
    paper: PaperTable | None, results: Results, row: Row, metric: str, value: Estimate, by_key: dict[str, Row]
) -> Entry:
    if row.kind == GAIN and not metric.startswith("decoded."):
        compared: Estimate | None = value
    else:
        compared = results.compared(row, metric, by_key)
    if paper is None:
        return Entry(value=value, compared=compared)
    known = _STANDS_FOR.get(metric, metric)
    if known != metric and known in results.metrics([row]):
        known = metric  # the paper's own is there
    return Entry(
        value=value,
        compared=compared,
        paper=paper.rows.get(row.key, {}).get(known),
        word=verdict(direction(paper, row.key, row.against, known), compared),
    )


def as_json(table: Table) -> dict[str, Any]:
    """A table for programs."""
    return {
        "name": table.name,
        "title": table.title,
        "unit": table.unit,
        "columns": [
            {"name": one.name, "label": one.label, "better": one.better or None, "chance": table.chance.get(one.name)}
            for one in table.columns
        ],
        "rows": [
            {
                "key": row.key,
                "label": row.label,
                "kind": row.kind,
                "against": row.against,
                "agreement": table.word(row),
                "values": {
                    column.name: _entry_json(table.entries[row.key, column.name], table.unit)
                    for column in table.columns
                    if (row.key, column.name) in table.entries
                },
            }
            for row in table.rows
        ],
    }


def _entry_json(entry: Entry, unit: str) -> dict[str, Any]:
    compared, paper = entry.compared, entry.paper
    return {
        "mean": entry.value.mean,
        "ci95": _ends(entry.value),
        f"n_{unit}": entry.value.n_pictures,
        "difference": None if compared is None else compared.mean,
        "difference_ci95": None if compared is None else _ends(compared),
        "paper": None if paper is None else paper[0],
        "paper_spread": None if paper is None else paper[1],
        "agreement": entry.word,
        **({} if entry.null is None else {"null95": entry.null}),
    }


def _ends(estimate: Estimate) -> list[float] | None:
    return None if estimate.ci95 is None else list(estimate.ci95)


def as_csv(tables: Sequence[Table]) -> str:
    """All tables, one value a line."""
    out = io.StringIO()
    names = ("low", "high", "n", "unit", "null95", "difference", "difference_low", "difference_high")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ("table", "row", "label", "kind", "against", "metric", "mean", *names, "paper", "paper_spread", "agreement")
    )
    for table in tables:
        for row in table.rows:
            for column in table.columns:
                entry = table.entries.get((row.key, column.name))
                if entry is None:
                    continue
                value, compared = entry.value, entry.compared
                paper = entry.paper or (None, None)
                ends = value.ci95 or (None, None)
                apart = (None, None, None) if compared is None else (compared.mean, *(compared.ci95 or (None, None)))
                writer.writerow(
                    (table.name, row.key, row.label, row.kind, row.against or "", column.name, value.mean)
                    + (*ends, value.n_pictures, table.unit, entry.null, *apart, *paper, entry.word or "")
                )
    return out.getvalue()


def as_markdown(table: Table, *, metrics_down: bool) -> str:
    """A table in the paper's layout: the value, its interval, and the paper's number in brackets."""
    grid = grid_of(table, metrics_down=metrics_down)
    head, *body = [[cell.text for cell in line] for line in grid]
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in lines)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A field of the table as people see it: text, and the word that colours it."""

    text: str
    word: str | None = None
    paper: str = ""
    null: str = ""


def grid_of(table: Table, *, metrics_down: bool, with_paper: bool = True) -> list[list[Cell]]:
    """Lines of fields, the first of which are headings."""
    columns = list(table.columns)
    head = [Cell(text=one.heading) for one in columns]
    words = [table.word(row) for row in table.rows]
    has_words = any(words)
    lines = [[Cell(text=""), *head, *([Cell(text="as the paper?")] if has_words else [])]]
    for row, word in zip(table.rows, words, strict=True):
        line = [Cell(text=row.label)]
        for column in columns:
            entry = table.entries.get((row.key, column.name))
            line.append(_field(entry, row, with_paper=with_paper, form=column.form))
        lines.append([*line, *([Cell(text=word or "", word=word)] if has_words else [])])
    if table.chance:
        levels = [table.chance.get(column.name) for column in columns]
        line = [Cell(text="–" if level is None else f"{level:.3f}") for level in levels]
        called = "chance" if table.name == DECODED else "stage 1 of another picture"
        lines.append([Cell(text=called), *line, *([Cell(text="")] if has_words else [])])
    if not metrics_down:
        return lines
    return [list(line) for line in zip(*lines, strict=True)]


def _field(entry: Entry | None, row: Row, *, with_paper: bool, form: str) -> Cell:
    if entry is None:
        return Cell(text="–")
    gain = row.kind == GAIN
    text = value_text(entry.value, gain=gain and entry.compared is entry.value, form=form)
    paper = "" if entry.paper is None else number_text(entry.paper, gain=gain)
    shown = f"{text} (paper {paper})" if paper and with_paper else text
    return Cell(
        text=shown,
        word=entry.word,
        paper=paper,
        null="" if entry.null is None else f"random sets < {entry.null:{form}}",
    )


def value_text(value: Estimate, *, gain: bool, form: str = ".3f") -> str:
    """A mean with its interval."""
    unit, form = (" %", "+.1f") if gain else ("", form)
    text = f"{value.mean:{form}}{unit}"
    if value.ci95 is None:
        return text
    return f"{text} [{value.ci95[0]:{form}}, {value.ci95[1]:{form}}]"
