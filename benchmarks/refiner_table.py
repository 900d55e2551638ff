"""The arithmetic of the bench of refiners: means, paired differences with intervals, and tables as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.runtime.metrics.compare import Difference, differences, mean

Values = Mapping[str, NDArray[np.float64]]
"""Metric -> (n,), the trials of all subjects one after the other."""

COLUMNS = {
    "pixcorr": "PixCorr",
    "ssim": "SSIM",
    "place": "place",
    "size": "size",
    "overlap": "overlap",
    "concept_top1": "concept",
    "clip_two_way": "CLIP 2-way",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """One refiner toward one kind of target.

    Attributes
    ----------
    name, label, condition
    values
        Of its trials.
    cost
        Of a picture, in UNet forward passes.
    seconds
        Per trial, of each batch.
    """

    name: str
    label: str
    condition: str
    values: Values
    cost: float
    seconds: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the tables: means over pictures, and paired differences by metric.

    Attributes
    ----------
    against_stage1
        This row minus stage 1.
    against_shuffled
        This row minus the same refiner toward another picture's target; None where there is none to compare with.
    """

    name: str
    label: str
    condition: str
    n_trials: int
    means: dict[str, float]
    cost: float
    seconds: float
    against_stage1: dict[str, Difference]
    against_shuffled: dict[str, Difference] | None


def rows_of(
    results: Sequence[Result], stimulus_ids: Sequence[str], *, reference: str, decoded: str, shuffled: str
) -> list[Row]:
    """Compare everything with stage 1, and decoded targets with shuffled ones.

    Parameters
    ----------
    results
        On the same trials.
    stimulus_ids
        Of each trial; trials of one picture count as one, and the bootstrap draws pictures.
    reference
        The name of stage 1.
    decoded, shuffled
        The names of these conditions.
    """
    by_name = {(result.name, result.condition): result.values for result in results}
    (stage1,) = (values for (name, _), values in by_name.items() if name == reference)
    rows = []
    for result in results:
        floor = by_name.get((result.name, shuffled)) if result.condition == decoded else None
        rows.append(
            Row(
                name=result.name,
                label=result.label,
                condition=result.condition,
                n_trials=len(stimulus_ids),
                means={metric: mean(values, stimulus_ids) for metric, values in result.values.items()},
                cost=result.cost,
                seconds=median(result.seconds),
                against_stage1=_differences(stage1, result.values, stimulus_ids),
                against_shuffled=None if floor is None else _differences(floor, result.values, stimulus_ids),
            )
        )
    return rows


def _differences(first: Values, second: Values, stimulus_ids: Sequence[str]) -> dict[str, Difference]:
    shared = [metric for metric in first if metric in second]
    return differences(
        {metric: first[metric] for metric in shared},
        {metric: second[metric] for metric in shared},
        np.random.default_rng(0),  # the same resamples in every row
        stimulus_ids=stimulus_ids,
    )


def as_json(row: Row) -> dict[str, Any]:
    return asdict(row)


def text(rows: Sequence[Row], title: str, *, reference: str) -> str:
    """Three tables: means, differences to stage 1 (the row named `reference`), and decoded minus shuffled."""
    metrics = [metric for metric in COLUMNS if all(metric in row.means for row in rows)]
    heads = [COLUMNS[metric] for metric in metrics]
    means = [["refiner", "target", *heads, "cost", "s/trial"]]
    for row in rows:
        numbers = [f"{row.means[metric]:.3f}" for metric in metrics]
        means.append([row.label, row.condition, *numbers, f"{row.cost:,.0f}", f"{row.seconds:.3f}"])
    changes = [["minus stage 1", "target", *heads]]
    changes += [
        [row.label, row.condition, *(_interval(row.against_stage1[metric]) for metric in metrics)]
        for row in rows
        if row.name != reference
    ]
    over = [["decoded minus shuffled", *heads]]
    for row in rows:
        if row.against_shuffled is not None:
            over.append([row.label, *(_interval(row.against_shuffled[metric]) for metric in metrics)])
    tables = [means, changes, *([over] if len(over) > 1 else [])]
    return "\n\n".join([title, *map(_aligned, tables)])


def _interval(change: Difference) -> str:
    interval = change["ci95"]
    shown = "" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]"
    return f"{change['difference']:+.3f}{shown}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    n_names = 2 if lines[0][1] == "target" else 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < n_names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
