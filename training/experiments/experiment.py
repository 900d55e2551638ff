"""What an experiment is.

It is one file with an :class:`Experiment` and one line in `EXPERIMENTS` of this package. Most cells are a fit and a run
(:mod:`.cells`), but a cell may be any steps: the runner knows that they make a folder, and the cell how it is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .base import Cell, Claim, Drawing, Row
from .paper import PaperTable
from .results import Results
from .subject import Plan, Subject
from .table import Table


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One of the paper's experiments.

    Attributes
    ----------
    name, title
        For the command and for the page.
    source
        The tables and figures of the paper.
    question
        What it asks, in a sentence.
    modalities
        Kinds of data that it takes.
    mixed
        Whether subjects of several modalities may be given together: where rows say which they are of.
    cells
        Of a subject; refuses a subject that it does not take.
    rows
        Of the table, for the modalities that were given.
    paper
        The paper's table, where it has numbers.
    claims
        What the paper says, for the modalities that were given.
    decoded
        Whether how well features are decoded is a table of its own, with the same rows.
    metrics_down
        Whether the metrics are the table's lines, as in Tables 5 and 6, and rows its columns.
    put_in
        What a simulated subject's maker decided of the result: modality, kind of brain -> sentences.
    figure
        Draws it: results, file to write (the ending says in which format).
    caption
        What stands below the figure.

    Of an experiment that does not compare pictures of runs:

    check
        Refuses data and settings that it does not take, before anything is made.
    n_trials
        Test pictures of each subject, one trial of each, where nobody says another number; None: all trials.
    tables, judged, notes, how
        The tables, what the paper says as JSON (see :mod:`.claims`), the notes, and how cells were made, in the place
        of those that are made of rows and metrics.
    drawings
        Pictures that the page shows below the figure.
    surfaces
        Whether it draws on the cortical surface.
    """

    name: str
    title: str
    source: str
    question: str
    modalities: tuple[str, ...]
    cells: Callable[[Subject, Plan], Sequence[Cell]]
    rows: Callable[[Sequence[str], Plan], Sequence[Row]]
    figure: Callable[[Results, Path], None]
    put_in: Callable[[str, str], Sequence[str]]
    mixed: bool = False
    paper: PaperTable | None = None
    claims: Callable[[Sequence[str]], Sequence[Claim]] = lambda _modalities: ()
    decoded: bool = False
    metrics_down: bool = False
    caption: str = "Means with 95 % intervals over pictures. ↑ more is better, ↓ less is better."
    check: Callable[[Sequence[Subject], Plan], None] = lambda _subjects, _plan: None
    n_trials: int | None = 32
    tables: Callable[[Results], Sequence[Table]] | None = None
    judged: Callable[[Results], list[dict[str, Any]]] | None = None
    notes: Callable[[Results], list[str]] | None = None
    how: str | None = None
    drawings: Callable[[Results], Sequence[Drawing]] = lambda _results: ()
    surfaces: bool = False
