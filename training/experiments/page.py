"""The page of an experiment: one file with its figure, tables, claims and pictures, which loads nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from ...runtime.command import version
from .base import Drawing, Row
from .claims import claim_text
from .experiment import Experiment
from .notes import facts, notes_of, put_in_of
from .results import GAIN, Results
from .steps import Run, frame_folder
from .subject import Subject
from .table import Cell, Table, grid_of
from .verdicts import MEANINGS

# Trials whose pictures are shown: the first ones, unselected.
_N_SHOWN = 6


def page(
    experiment: Experiment, results: Results, tables: Sequence[Table], claims: Sequence[dict[str, Any]], out: Path
) -> str:
    """The whole page; the figure is taken from `out`."""
    put_in = "".join(f"<p>{escape(line)}</p>" for line in put_in_of(experiment, results))
    known = version()
    return Template(_read("page.html")).substitute(
        title=escape(experiment.title),
        name=escape(experiment.name),
        source=escape(experiment.source),
        question=escape(experiment.question),
        facts=escape(facts(experiment, results)),
        style=_read("page.css"),
        put_in=f'<aside aria-labelledby="put-in"><strong id="put-in">What the simulator put in</strong>{put_in}</aside>'
        if put_in
        else "",
        caption=escape(experiment.caption),
        drawings="".join(map(_drawing, experiment.drawings(results))),
        figure=_svg(out / "figure.svg", experiment.title),
        tables="".join(
            _table(table, metrics_down=experiment.metrics_down) for table in tables if table.columns and table.on_page
        ),
        claims=_claims(claims),
        pictures="".join(_pictures(results, subject) for subject in _first_of_each(results)),
        notes="".join(f"<li>{escape(line)}</li>" for line in notes_of(experiment, results)),
        words="".join(f"<dt>{_word(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in MEANINGS.items()),
        version=f" {escape(known)}" if known else "",
    )


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _svg(path: Path, title: str) -> str:
    """The drawing without its XML heading, which has no place inside of a page."""
    text = path.read_text(encoding="utf-8")
    label = f"The figure: {title}. Its numbers are in the tables."
    return text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def _word(word: str) -> str:
    return f'<span class="word {escape(word)}">{escape(word)}</span>'


def _field(cell: Cell) -> str:
    text = "" if cell.word == cell.text else escape(cell.text)
    paper = f'<span class="paper">paper {escape(cell.paper)}</span>' if cell.paper else ""
    paper += f'<span class="paper">{escape(cell.null)}</span>' if cell.null else ""
    return f"<td>{text}{paper}{'' if cell.word is None else ' ' + _word(cell.word)}</td>"


def _table(table: Table, *, metrics_down: bool) -> str:
    head, *body = grid_of(table, metrics_down=metrics_down, with_paper=False)
    heads = "".join(f'<th scope="col">{escape(cell.text)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(line[0].text)}</th>{"".join(map(_field, line[1:]))}</tr>' for line in body
    )
    return (
        f'<section aria-labelledby="table-{table.name}"><h2 id="table-{table.name}">{escape(table.title)}</h2>'
        f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'
        "</section>"
    )


def _claims(claims: Sequence[dict[str, Any]]) -> str:
    if not claims:
        return ""
    lines = "".join(
        f'<tr><td class="text">{escape(one["text"])}</td><td>{escape(one["source"])}</td><td>{escape(claim_text(one))}'
        f"</td><td>{_word(one['agreement']) if one['agreement'] else ''}</td></tr>"
        for one in claims
    )
    return (
        '<section aria-labelledby="claims"><h2 id="claims">What the paper says</h2><div class="scroll" tabindex="0">'
        '<table><thead><tr><th scope="col">sentence</th><th scope="col">where</th><th scope="col">difference here</th>'
        f'<th scope="col"></th></tr></thead><tbody>{lines}</tbody></table></div></section>'
    )


def _drawing(drawing: Drawing) -> str:
    return (
        f'<section><h2>{escape(drawing.title)}</h2><figure class="drawing">{_image(drawing.path, drawing.title)}'
        f"<figcaption>{escape(drawing.caption)}</figcaption></figure></section>"
    )


def _first_of_each(results: Results) -> list[Subject]:
    """The first subject of each modality that has measured cells."""
    first: dict[str, Subject] = {}
    for subject in results.subjects:
        if results.values[subject.label]:
            first.setdefault(subject.modality, subject)
    return list(first.values())


def _pictures(results: Results, subject: Subject) -> str:
    """What was shown, and each row's picture, for the first trials."""
    folders = {row.label: folder for row in results.rows if (folder := _folder(results, subject, row)) is not None}
    if not folders:
        return ""
    first, (run, _) = next(iter(folders.items()))
    if not any(pictures.name == "stage1" for _, pictures in folders.values()):  # an iteration's lie in one too
        # Other rows may have another one, such as those of other voxels.
        folders = {f"{first}: stage 1": (run, run / "images" / "stage1"), **folders}
    rows = json.loads((run / "trials.json").read_text())[:_N_SHOWN]
    heads = "".join(f'<th scope="col">{escape(label)}</th>' for label in ("shown", *folders))
    lines = ""
    for row in rows:
        name = f"{row['trial']:06d}.png"
        paths = [("the stimulus", run / "stimuli" / name)]
        paths += [(label, pictures / name) for label, (_, pictures) in folders.items()]
        trial = f"trial {row['trial']}"
        cells = "".join(f"<td>{_image(path, f'{trial}: {label}')}</td>" for label, path in paths)
        lines += f"<tr>{cells}</tr>"
    label = f"pictures-{subject.modality}"
    return (
        f'<section aria-labelledby="{label}"><h2 id="{label}">Pictures of {escape(subject.label)}</h2>'
        f'<p class="soft">The first {len(rows)} trials, not selected.</p><div class="scroll" tabindex="0">'
        f'<table class="strip"><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div></section>'
    )


def _folder(results: Results, subject: Subject, row: Row) -> tuple[Path, Path] | None:
    """The run folder of a row, and the folder of its pictures in it; None where there are no such pictures."""
    cells = [cell for cell in results.cells[subject.label] if cell.name == row.cell]
    runs = [step for cell in cells for step in cell.steps if isinstance(step, Run)]
    if not runs:
        return None
    run = subject.out / runs[0].folder
    kind = "stage2" if row.kind == GAIN else row.kind
    pictures = run / "images" / kind
    if kind.startswith("frame"):
        pictures = frame_folder(run, int(kind.removeprefix("frame")))
    return (run, pictures) if pictures.is_dir() and (run / "trials.json").exists() else None


def _image(path: Path, what: str) -> str:
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(what, quote=True)}" loading="lazy">'
