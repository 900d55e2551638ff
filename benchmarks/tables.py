"""One job's contestants become rows, rows a table, and goals verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from timing import Seconds, median_ms, speedup

from minddiffuser.runtime.engines.ort.engine import as_numpy

Outputs = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """The same work for every contestant.

    Attributes
    ----------
    name
    batch : int
        Trials in one call.
    contestants : mapping
        Name -> what to do. It gives arrays by name: "picture" or "latent" are compared value by value, everything
        else as a vector. The first is what the others are compared with.
    flops : int or None
        Of one call.
    parts : int
        Of which one call has so many; times are of one part.
    """

    name: str
    batch: int
    contestants: Mapping[str, Callable[[], Outputs]]
    flops: int | None = None
    parts: int = 1

    @property
    def reference(self) -> str:
        return next(iter(self.contestants))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant's result.

    Attributes
    ----------
    milliseconds : float
        The median.
    speedup : float
        Times faster than the job's reference.
    gflops : float or None
        Rate: 1e9 operations per second.
    difference : dict
        From the reference: the largest in a picture or latent, relative ones for everything else.
    """

    job: str
    batch: int
    contestant: str
    milliseconds: float
    speedup: float
    gflops: float | None
    difference: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A contestant is to be `at_least` times faster than another in a job."""

    job: str
    contestant: str
    against: str
    at_least: float

    def verdicts(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """One for each batch size that was measured."""
        found = {(row.batch, row.contestant): row for row in rows if row.job == self.job}
        verdicts = []
        for batch in sorted({batch for batch, _ in found}):
            pair = [found.get((batch, name)) for name in (self.contestant, self.against)]
            if pair[0] is None or pair[1] is None:
                continue
            times = pair[0].speedup / pair[1].speedup
            goal = f"{self.job}, batch {batch}: {self.contestant} {self.at_least:g} x faster than {self.against}"
            verdicts.append({"goal": goal, "times_faster": times, "met": times >= self.at_least})
        return verdicts


def rows_of(job: Job, seconds: Seconds) -> list[Row]:
    """Rows of a measured job; each contestant is run once more, to compare what it gives."""
    outputs = {name: work() for name, work in job.contestants.items()}
    rows = []
    for name, taken in seconds.items():
        ms = median_ms(taken)
        rows.append(
            Row(
                job=job.name,
                batch=job.batch,
                contestant=name,
                milliseconds=ms / job.parts,
                speedup=speedup(taken, seconds[job.reference]),
                gflops=None if job.flops is None else job.flops / (ms * 1e6),
                difference=differences(outputs[name], outputs[job.reference]),
            )
        )
    return rows


def differences(given: Outputs, reference: Outputs) -> dict[str, float]:
    """How far outputs are from the reference's, name by name."""
    found = {}
    for name, array in given.items():
        a, b = (np.asarray(as_numpy(x), np.float64) for x in (array, reference[name]))
        far = np.abs(a - b).max() if name in ("picture", "latent") else np.linalg.norm(a - b) / np.linalg.norm(b)
        found[name] = float(far)
    return found


def table(rows: Sequence[Row], peak_gflops: float) -> str:
    """All rows as text, jobs apart; rates as shares of the peak."""
    lines = [f"{'job':<34}{'batch':>6}  {'contestant':<30}{'ms':>10}{'ratio':>8}{'peak':>7}  largest difference"]
    before = None
    for row in rows:
        now = (row.job, row.batch)
        if before not in (None, now):
            lines.append("")
        job, batch = now if now != before else ("", "")
        share = "" if row.gflops is None else f"{row.gflops / peak_gflops:.0%}"
        shown = ", ".join(f"{name} {value:.1e}" for name, value in row.difference.items())
        lines.append(
            f"{job:<34}{batch:>6}  {row.contestant:<30}{row.milliseconds:>10.2f}{row.speedup:>8.2f}{share:>7}  {shown}"
        )
        before = now
    return "\n".join(lines)


def goal_lines(verdicts: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"{'met' if verdict['met'] else 'MISSED':<8}{verdict['times_faster']:>6.2f} x  {verdict['goal']}"
        for verdict in verdicts
    )


def unequal(rows: Sequence[Row], tolerance: Mapping[str, float]) -> list[str]:
    """Sentences about contestants that did not compute the same."""
    return [
        f"{row.contestant} in {row.job}, batch {row.batch}: {name} differs by {value:.1e}, allowed {tolerance[name]:g}"
        for row in rows
        for name, value in row.difference.items()
        if not value <= tolerance[name]  # NaN is unequal
    ]
