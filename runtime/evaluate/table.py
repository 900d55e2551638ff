"""An evaluation as text for a terminal, CSV, Markdown, and LaTeX rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

_UP, _DOWN = "↑", "↓"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_TIDY = (
    *("row", "against", "metric", "label", "better", "n_pictures", "value", "ci95_low", "ci95_high"),
    *("other_stimuli", "p_value", "n_permutations", "exact"),
)
Content = Mapping[str, Any]


def text(evaluation: Content) -> str:
    """Tables for a terminal: the rows; each value with its interval and p-value; paired differences."""
    parts = [_aligned(_wide(evaluation)), _aligned(_details(evaluation))]
    if evaluation["differences"]:
        parts.append(_aligned(_differences(evaluation)))
    return "\n".join(parts)


def markdown(evaluation: Content) -> str:
    """The same tables in Markdown."""
    parts = [_piped(_wide(evaluation)), _piped(_details(evaluation))]
    if evaluation["differences"]:
        parts.append(_piped(_differences(evaluation)))
    return "\n".join(parts)


def latex(evaluation: Content) -> str:
    """One table with the rules of the package booktabs: the metrics as columns, a row for each folder."""
    metrics = evaluation["metrics"]
    arrows = {"higher": r"$\uparrow$", "lower": r"$\downarrow$"}
    heads = [f"{_escaped(metric['label'])} {arrows[metric['better']]}" for metric in metrics.values()]
    lines = [
        f"% {len(evaluation['rows'])} row(s), {evaluation['stimuli']['n']} stimuli; needs \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{l{'c' * len(heads)}}}",
        r"\toprule",
        f"{' & '.join(['Method', *heads])} \\\\",
        r"\midrule",
    ]
    for row in evaluation["rows"]:
        cells = [_value(metrics[name], row["metrics"][name]["value"]).replace("−", "-") for name in metrics]
        shown = [f"${cell}$" if cell.startswith("-") else cell.replace(" %", r"\%") for cell in cells]
        lines.append(f"{' & '.join([_escaped(row['name']), *shown])} \\\\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def tidy_csv(evaluation: Content) -> str:
    """One line for each row and metric, and for each paired difference ("against" names what is subtracted)."""
    lines: list[Sequence[object]] = [_TIDY]
    for row in evaluation["rows"]:
        for name, score in row["metrics"].items():
            lines.append(_line(evaluation, row["name"], "", name, score, score["value"]))
    for pair in evaluation["differences"]:
        for name, change in pair["metrics"].items():
            lines.append(_line(evaluation, pair["second"], pair["first"], name, change, change["difference"]))
    return _csv(lines)


def per_picture_csv(evaluation: Content) -> str:
    """One line for each row and stimulus, with its values as columns."""
    names, values = evaluation["per_picture"]["stimuli"], evaluation["per_picture"]["values"]
    lines: list[Sequence[object]] = [("row", "stimulus", *evaluation["metrics"])]
    for row, by_metric in values.items():
        for place, stimulus in enumerate(names):
            lines.append((row, stimulus, *(repr(by_metric[name][place]) for name in evaluation["metrics"])))
    return _csv(lines)


def _line(evaluation: Content, row: str, against: str, name: str, score: Content, value: float) -> tuple[object, ...]:
    metric = evaluation["metrics"][name]
    low, high = score["ci95"] or ("", "")
    cells = (value, low, high, score.get("other_stimuli"), score["p_value"], score.get("n_permutations"))
    shown = ["" if cell is None or cell == "" else repr(cell) for cell in cells]
    n = evaluation["stimuli"]["n"]
    return (row, against, name, metric["label"], metric["better"], n, *shown, score.get("exact", ""))


def _csv(lines: Sequence[Sequence[object]]) -> str:
    memory = io.StringIO()
    csv.writer(memory, lineterminator="\n").writerows(lines)
    return memory.getvalue()


def _wide(evaluation: Content) -> list[list[str]]:
    metrics = evaluation["metrics"]
    table = [["", *(f"{m['label']} {_UP if m['better'] == 'higher' else _DOWN}" for m in metrics.values())]]
    for row in evaluation["rows"]:
        table.append([row["name"], *(_value(metrics[name], row["metrics"][name]["value"]) for name in metrics)])
    return table


def _details(evaluation: Content) -> list[list[str]]:
    table = [["", "metric", "value", "95 % interval", "other stimuli", "p"]]
    for row in evaluation["rows"]:
        for name, score in row["metrics"].items():
            metric = evaluation["metrics"][name]
            other = "–" if score["other_stimuli"] is None else _value(metric, score["other_stimuli"])
            value, bounds = _value(metric, score["value"]), _interval(metric, score["ci95"])
            table.append([row["name"], metric["label"], value, bounds, other, _p(score)])
    return table


def _differences(evaluation: Content) -> list[list[str]]:
    table = [["", "metric", "difference", "95 % interval", "p"]]
    for pair in evaluation["differences"]:
        for name, change in pair["metrics"].items():
            metric = evaluation["metrics"][name]
            table.append(
                [
                    f"{pair['second']} − {pair['first']}",
                    metric["label"],
                    _value(metric, change["difference"], signed=True),
                    _interval(metric, change["ci95"], signed=True),
                    _p(change),
                ]
            )
    return table


def _value(metric: Content, value: float, *, signed: bool = False) -> str:
    """Rates of identification in per cent, as they are published; the others with three decimals."""
    shown = f"{100 * value:.1f} %" if metric["rate"] else f"{value:.3f}"
    if float(shown.removesuffix(" %")) == 0:
        return shown.removeprefix("-")
    return ("+" if signed and value > 0 else "") + shown.replace("-", "−")


def _interval(metric: Content, bounds: Sequence[float] | None, *, signed: bool = False) -> str:
    if bounds is None:
        return "–"
    low, high = (_value(metric, bound, signed=signed) for bound in bounds)
    return f"{low} to {high}"


def _p(score: Content) -> str:
    if score["p_value"] is None:
        return "–"
    return f"{score['p_value']:.4f}" if score["p_value"] >= 0.00005 else f"{score['p_value']:.1e}"


def _escaped(name: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in name)


def _aligned(table: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join(lines) + "\n"


def _piped(table: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in table]
    rule = ["---", *("---" if name == "metric" else "---:" for name in table[0][1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (escaped[0], rule, *escaped[1:])) + "\n"
