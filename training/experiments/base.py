"""The parts of an experiment: cells of steps, the rows that are made of them, and the paper's sentences on these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from .subject import Subject
from .values import Values

Say = Callable[[str, float | None], None]
# The kind of a step that another experiment had made already: how long it took says nothing of others.
TAKEN = "link"


@dataclass(frozen=True, kw_only=True)
class Tell:
    """Where a step says how far it is: `now` in a few words, with the share that is done or None; `log` each line."""

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

    def make(self, subject: Subject, tell: Tell) -> str | None:
        """Make it, or go on with it where it was stopped; returns its kind, where it turned out another one."""
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
    """

    name: str
    label: str
    steps: tuple[Step, ...]
    measure: Callable[[Subject], Values]


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
class Drawing:
    """A picture of its own on the page: a PNG, what it is, and what is to be known of it."""

    title: str
    caption: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper, as one comparison: values of `more` lie above those of `less`.

    Attributes
    ----------
    text, source
        The sentence in short, and where it stands.
    more, less
        (cell, column) of both; "METRIC.gain" is what stage 2 adds, in per cent of stage 1's mean, as in the paper's
        tables of gains.
    """

    text: str
    source: str
    more: tuple[str, str]
    less: tuple[str, str]
