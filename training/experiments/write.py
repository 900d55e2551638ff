"""The files of the result: table.json, .csv and .md, figure.svg and .png, report.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.environment import versions
from ...runtime.files import write_bytes, write_json
from .claims import claim_text, claims_of
from .experiment import Experiment
from .notes import facts, notes_of, put_in_of
from .page import page
from .results import Results
from .table import Table, as_csv, as_json, as_markdown, tables_of
from .verdicts import MEANINGS

VERSION = 1


def write_results(experiment: Experiment, results: Results, out: Path) -> Path:
    """Write everything that is made of the measured cells; returns the path of report.html."""
    if experiment.tables is None:
        tables = tables_of(results, experiment.paper, experiment.title, decoded=experiment.decoded)
    else:
        tables = list(experiment.tables(results))
    for ending in ("svg", "png"):
        experiment.figure(results, out / f"figure.{ending}")
    claims = claims_of(experiment, results)
    write_json(
        out / "table.json",
        {
            "format": "minddiffuser-experiment-table",
            "version": VERSION,
            "experiment": experiment.name,
            "source": experiment.source,
            "settings": results.plan.deciding(),
            "subjects": [
                {"label": one.label, "subject": one.data.subject, "modality": one.modality, "brain": one.brain}
                for one in results.subjects
            ],
            "tables": [as_json(table) for table in tables],
            "claims": claims,
            "missing": results.missing,
            "versions": versions(("minddiffuser", "numpy", "torch")),
        },
    )
    write_bytes(out / "table.csv", as_csv(tables).encode())
    write_bytes(out / "table.md", _markdown(experiment, results, tables, claims).encode())
    write_bytes(out / "report.html", page(experiment, results, tables, claims, out).encode())
    return out / "report.html"


def _markdown(experiment: Experiment, results: Results, tables: list[Table], claims: list[dict[str, Any]]) -> str:
    parts = [
        f"# {experiment.title}",
        f"The paper's {experiment.source}. {experiment.question}",
        facts(experiment, results),
    ]
    for table in tables:
        if table.columns and table.on_page:
            parts += [f"## {table.title}", as_markdown(table, metrics_down=experiment.metrics_down)]
    if claims:
        lines = ["| the paper says | where | here | |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {one['text']} | {one['source']} | {claim_text(one)} | {one['agreement'] or ''} |" for one in claims
        ]
        parts += ["## What the paper says", "\n".join(lines)]
    words = "; ".join(f"*{word}*: {meaning}" for word, meaning in MEANINGS.items())
    units = " or ".join(dict.fromkeys(table.unit for table in tables))
    parts.append(f"In square brackets: 95 % intervals over {units}. {words[:1].upper()}{words[1:]}.")
    parts += [f"What the simulator put in: {line}" for line in put_in_of(experiment, results)]
    parts.append("\n".join(f"- {line}" for line in notes_of(experiment, results)))
    return "\n\n".join(parts) + "\n"
