"""What an experiment found: values of rows pooled over subjects, and their comparisons.

A picture counts once, whatever subjects saw it: its value is the mean over them, and intervals are 95 % of a bootstrap
over pictures, paired where both sides have the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtime.metrics import METRICS
from ...runtime.metrics.compare import MIN_PICTURES
from ...runtime.metrics.statistics import N_RESAMPLES, paired_bootstrap, picture_means
from .base import Cell, Claim, Row
from .gains import gain_difference
from .subject import Plan, Subject
from .values import Values

Float64 = NDArray[np.float64]
GAIN = "gain"
_CONTROLS = {"shuffled": "target of another picture", "oracle": "target of the true features"}
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over pictures with its 95 % interval, None below five pictures."""

    mean: float
    ci95: tuple[float, float] | None
    n_pictures: int

    def scaled(self, factor: float) -> Estimate:
        """The same in other units."""
        ends = None
        if self.ci95 is not None:
            low, high = sorted(factor * end for end in self.ci95)
            ends = (low, high)
        return Estimate(mean=factor * self.mean, ci95=ends, n_pictures=self.n_pictures)

    @property
    def clear(self) -> int:
        """1 or -1 where the interval lies above or below 0, else 0."""
        if self.ci95 is None:
            return 0
        return int(self.ci95[0] > 0) - int(self.ci95[1] < 0)


def modalities_of(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """Those of the subjects, in the order fMRI, EEG, MEG."""
    there = {subject.modality for subject in subjects}
    return tuple(name for name in ("fmri", "eeg", "meg") if name in there)


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """Everything that the table, the figure and the page are made of.

    Attributes
    ----------
    asked
        The rows of the experiment's table.
    plan, subjects
        What was asked of them.
    cells
        Subject's label -> its cells.
    values
        Subject's label -> cell's name -> what it measured; those that are there.
    """

    asked: Sequence[Row]
    plan: Plan
    subjects: Sequence[Subject]
    cells: Mapping[str, Sequence[Cell]]
    values: Mapping[str, Mapping[str, Values]]

    @property
    def rows(self) -> list[Row]:
        """The rows that have values; with both controls of the first of them, where runs have these."""
        measured = {name for found in self.values.values() for name in found}
        rows = [row for row in self.asked if row.cell in measured]
        return [*rows, *self._controls(rows)]

    def _controls(self, rows: Sequence[Row]) -> list[Row]:
        """Rows of the floor and the ceiling of one cell, in a table of values (not of gains)."""
        first = next((row for row in rows if row.kind == "stage2"), None)
        if first is None or any(row.kind == GAIN for row in rows):
            return []
        there = {column.partition(".")[2] for found in self._of(first.cell) for column in found.columns}
        return [
            Row(key=f"{first.key}.{kind}", label=f"{first.label}: {words}", cell=first.cell, kind=kind)
            for kind, words in _CONTROLS.items()
            if kind in there
        ]

    @property
    def missing(self) -> list[str]:
        """Cells that are not measured, for people."""
        return [
            f"{subject.label}: {cell.label}"
            for subject in self.subjects
            for cell in self.cells[subject.label]
            if cell.name not in self.values[subject.label]
        ]

    @property
    def left_out(self) -> list[str]:
        """Metrics that some measured cells lack and others have, for people."""
        return [
            f"{METRICS[name].label} of {subject.label}, {cell.label}"
            for name in self.metrics(self.rows)
            for subject in self.subjects
            for cell in self.cells[subject.label]
            if (found := self.values[subject.label].get(cell.name)) is not None
            and not any(column.startswith(f"{name}.") for column in found.columns)
        ]

    def metrics(self, rows: Sequence[Row]) -> list[str]:
        """The metrics that some row has."""
        columns = {column for row in rows for found in self._of(row.cell) for column in found.columns}
        there = {column.partition(".")[0] for column in columns}
        return [name for name in METRICS if name in there]

    def features(self, rows: Sequence[Row]) -> list[str]:
        """The features of which some row says how well they are decoded, in their order."""
        names = [
            column.partition(".")[2]
            for row in rows
            for found in self._of(row.cell)
            for column in found.columns
            if column.startswith("decoded.")
        ]
        order = ("concept", "context", "semantic", "structure", "latent")
        unique = list(dict.fromkeys(names))
        return sorted(unique, key=lambda name: (order.index(name.partition(" ")[0]), unique.index(name)))

    def chance(self, cell: str, column: str) -> float | None:
        """What a column would be without information, the mean over subjects; None where it is not known."""
        known = [found.chance[column] for found in self._of(cell) if column in found.chance]
        return float(np.mean(known)) if known else None

    def estimate(self, row: Row, metric: str) -> Estimate | None:
        """The mean of a metric, or of a feature ("decoded.context"), in a row; None where it has none."""
        if metric.startswith("decoded."):
            return self.mean(row.cell, metric)
        if row.kind != GAIN:
            return self.mean(row.cell, f"{metric}.{row.kind}")
        base, gain = self.mean(row.cell, f"{metric}.stage1"), self.gain(row.cell, metric)
        if base is None or gain is None or base.mean == 0:
            return None
        return gain.scaled(100 * METRICS[metric].sign / abs(base.mean))

    def gain(self, cell: str, metric: str) -> Estimate | None:
        """Stage 2 minus stage 1 of a metric."""
        return self.difference((cell, f"{metric}.stage1"), (cell, f"{metric}.stage2"))

    def compared(self, row: Row, metric: str, by_key: Mapping[str, Row]) -> Estimate | None:
        """A row minus the one that it stands against; None without such a one."""
        decoded = metric.startswith("decoded.")
        if row.against is None or row.against not in by_key or (row.kind == GAIN and not decoded):
            return None
        other = by_key[row.against]
        ends = [(one.cell, metric if decoded else f"{metric}.{one.kind}") for one in (other, row)]
        return self.difference(ends[0], ends[1])

    def difference(self, first: tuple[str, str], second: tuple[str, str]) -> Estimate | None:
        """Second minus first, each a cell and a column; None where one is missing.

        Paired over the pictures that both have. Where these are of other subjects (such as EEG against fMRI), the
        intervals are of two independent samples.
        """
        a, b = self._pooled(*first), self._pooled(*second)
        if not a or not b:
            return None
        shared = [key for key in a if key in b]
        if shared:
            return _paired([a[key] for key in shared], [b[key] for key in shared], [key[1] for key in shared])
        return _unpaired(_by_picture(a), _by_picture(b))

    def claim(self, claim: Claim) -> Estimate | None:
        """`more` minus `less` of a claim; of gains, of their percentages."""
        ends = (claim.less, claim.more)
        if of_gains(claim):
            return self._difference_of_gains(*((cell, column.partition(".")[0]) for cell, column in ends))
        return self.difference(*ends)

    def _difference_of_gains(self, first: tuple[str, str], second: tuple[str, str]) -> Estimate | None:
        """Second minus first, each a cell and a metric: what stage 2 adds, in per cent of stage 1's mean.

        Both means are of the same resampled pictures, since a small mean of stage 1 makes a share uncertain.
        """
        a, b = (self._stages(cell, metric) for cell, metric in (first, second))
        if not a or not b:
            return None
        shared = [key for key in a if key in b]
        if shared:
            a, b = ({key: stages[key] for key in shared} for stages in (a, b))
        sides = [
            (_by_picture(_column(stages, 0)), _by_picture(_column(stages, 1)), METRICS[metric].sign)
            for stages, (_, metric) in ((a, first), (b, second))
        ]
        found = gain_difference(sides[0], sides[1], np.random.default_rng(_SEED), paired=bool(shared))
        n = min(len(before) for before, _, _ in sides)
        return Estimate(
            mean=found.difference, ci95=(found.low, found.high) if n >= MIN_PICTURES else None, n_pictures=n
        )

    def _stages(self, cell: str, metric: str) -> dict[tuple[str, str], tuple[float, float]]:
        """(subject, picture) -> values of stage 1 and stage 2, where there are both."""
        before, after = (self._pooled(cell, f"{metric}.{stage}") for stage in ("stage1", "stage2"))
        return {key: (value, after[key]) for key, value in before.items() if key in after}

    def mean(self, cell: str, column: str) -> Estimate | None:
        """The mean of a cell's column over all pictures; None where there is none."""
        pooled = self._pooled(cell, column)
        if not pooled:
            return None
        return _paired([0.0] * len(pooled), list(pooled.values()), [picture for _, picture in pooled])

    def by_picture(self, cell: str, column: str) -> Float64:
        """A cell's column, (n_pictures,): of each picture the mean over subjects."""
        return _by_picture(self._pooled(cell, column))

    def _pooled(self, cell: str, column: str) -> dict[tuple[str, str], float]:
        """(subject, picture) -> value."""
        pooled: dict[tuple[str, str], float] = {}
        for label, found in self.values.items():
            values = found.get(cell)
            if values is not None and column in values.columns:
                array = values.columns[column]
                pooled |= {(label, picture): float(v) for picture, v in zip(values.pictures, array, strict=True)}
        return pooled

    def _of(self, cell: str) -> list[Values]:
        return [found[cell] for found in self.values.values() if cell in found]


def of_gains(claim: Claim) -> bool:
    """Whether a claim compares gains, which are per cent."""
    return claim.more[1].endswith(f".{GAIN}")


def _column(stages: Mapping[tuple[str, str], tuple[float, float]], number: int) -> dict[tuple[str, str], float]:
    return {key: values[number] for key, values in stages.items()}


def _by_picture(pooled: Mapping[tuple[str, str], float]) -> Float64:
    return picture_means(np.array(list(pooled.values())), [picture for _, picture in pooled])


def _paired(first: Sequence[float], second: Sequence[float], pictures: Sequence[str]) -> Estimate:
    rng = np.random.default_rng(_SEED)
    found = paired_bootstrap(np.array(first), np.array(second), rng, stimulus_ids=pictures)
    n = len(set(pictures))
    return Estimate(mean=found.difference, ci95=(found.low, found.high) if n >= MIN_PICTURES else None, n_pictures=n)


def _unpaired(first: Float64, second: Float64) -> Estimate:
    """The difference of the means of two independent samples, by a bootstrap of each."""
    rng = np.random.default_rng(_SEED)
    means = [
        values[rng.integers(len(values), size=(N_RESAMPLES, len(values)))].mean(axis=1) for values in (first, second)
    ]
    low, high = np.quantile(means[1] - means[0], [0.025, 0.975])
    n = min(len(first), len(second))
    return Estimate(
        mean=float(second.mean() - first.mean()),
        ci95=(float(low), float(high)) if n >= MIN_PICTURES else None,
        n_pictures=n,
    )
