"""What an experiment is: cells of steps, the rows that are made of them, and what the paper says of these.

An experiment is one file with an :class:`Experiment` and one line in `EXPERIMENTS` of this package. Most cells are a
fit and a run (:mod:`.cells`), but a cell may be any steps: the runner knows that they make a folder, and the cell how
it is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from .paper import PaperTable
from .subject import Plan, Subject
from .values import Values

if TYPE_CHECKING:
    from .results import Results

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Tell:
    """Where a step says how far it is: `now` in a few words, `log` every line of it."""

    now: Say
    log: TextIO


class Step(Protocol):
    """Something that makes a folder, once; cells that name an equal step share what it made."""

    @property
    def folder(self) -> str:
        """Where, below the subject's folder; it says which step it is."""
        ...

    @property
    def kind(self) -> str:
        """A word for people, such as "fit"; steps of one kind are taken to last alike."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Everything that decides what it makes, besides the plan and the data, as JSON."""
        ...

    def make(self, subject: Subject, tell: Tell) -> None:
        """Make it, or go on with it where it was stopped."""
        ...


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Steps, and how what they made is measured.

    Attributes
    ----------
    name
        Of its file, unique among the cells of a subject.
    label
        For people.
    steps
        In their order; each is made once, whoever shares it.
    measure
        Called with the subject when all steps are made.
    measured_by
        What decides what `measure` gives besides the steps, as JSON.
    """

    name: str
    label: str
    steps: tuple[Step, ...]
    measure: Callable[[Subject], Values]
    measured_by: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: the values of one cell, of one kind.

    Attributes
    ----------
    key
        Of the row, as in the paper's table.
    cell
        Whose values it takes, of all subjects that have it.
    kind
        "stage1", "stage2" or another suffix of a cell's columns; or "gain": what stage 2 adds to stage 1, in per cent
        of stage 1's mean, positive where a metric became better.
    against
        The row whose values are subtracted, where the table compares.
    """

    key: str
    label: str
    cell: str
    kind: str = "stage2"
    against: str | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper, as one comparison: values of `more` lie above those of `less`.

    Attributes
    ----------
    text, source
        The sentence in short, and where it stands.
    more, less
        (cell, column) of both; "METRIC.gain" is stage 2 minus stage 1.
    """

    text: str
    source: str
    more: tuple[str, str]
    less: tuple[str, str]


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
    paper: PaperTable | None = None
    claims: Callable[[Sequence[str]], Sequence[Claim]] = lambda _modalities: ()
    decoded: bool = False
    metrics_down: bool = False
