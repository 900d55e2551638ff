"""The figures, by matplotlib: dots or lines of means with their intervals. The library is opened when one is drawn."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...runtime.errors import MissingExtra
from ...runtime.files import replacing
from ...runtime.metrics import METRICS
from .base import Row
from .results import GAIN, Estimate, Results

# Okabe and Ito's colours, which people with any colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# As many that no colour meets a mark twice among sixty.
_MARKS = ("o", "s", "D", "^", "v", "P", "X", "<", ">")
_DPI = 150


def require_matplotlib() -> None:
    """Refuse to begin what could not be drawn at its end.

    Raises
    ------
    MissingExtra
        There is no matplotlib.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "md-train experiment draws figures with matplotlib: pip install 'minddiffuser[figures]'"
        ) from error


@contextmanager
def axes(path: Path, n_columns: int, *, size: tuple[float, float] = (3.4, 3.2), n_rows: int = 1) -> Iterator[Any]:
    """Axes side by side, (n_rows, n_columns), which are written to a file at the end.

    No state of matplotlib's is changed, and no display is needed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "minddiffuser", "axes.grid": True}):
        figure = Figure(figsize=(size[0] * n_columns, size[1] * n_rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for one in grid.flat:
            one.spines[["top", "right"]].set_visible(False)
            one.grid(alpha=0.25)
        yield grid
        metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        with replacing(path) as draft:
            figure.savefig(os.fspath(draft), format=path.suffix[1:], dpi=_DPI, metadata=metadata)


@contextmanager
def _panels(path: Path, number: int, *, size: tuple[float, float]) -> Iterator[list[Any]]:
    """So many axes, four beside each other."""
    n_columns = min(max(number, 1), 4)
    with axes(path, n_columns, size=size, n_rows=max(-(-number // n_columns), 1)) as grid:
        flat = list(grid.flat)
        for ax in flat[number:]:
            ax.set_visible(False)
        yield flat[:number]


def dots(
    ax: Any,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Estimate | None]],
    *,
    zero: bool = False,
    chance: Sequence[float | None] = (),
) -> None:
    """Means with intervals, one group of dots beside the other; series -> one estimate per group."""
    width = 0.7 / max(len(series), 1)
    for number, (label, estimates) in enumerate(series.items()):
        shift = (number - (len(series) - 1) / 2) * width
        there = [(place + shift, one) for place, one in enumerate(estimates) if one is not None]
        _marks(ax, [x for x, _ in there], [one for _, one in there], number, label, line=False)
    for place, level in enumerate(chance):
        if level is not None:
            ax.hlines(level, place - 0.45, place + 0.45, colors="0.5", linestyles="dotted", linewidth=1.2)
    if zero:
        ax.axhline(0, color="0.4", linewidth=0.8)
    ax.set_xticks(range(len(groups)), groups, rotation=35, ha="right")


def curves(ax: Any, xs: Sequence[float], series: Mapping[str, Sequence[Estimate | None]]) -> None:
    """Means with intervals along x; series -> one estimate per x."""
    for number, (label, estimates) in enumerate(series.items()):
        there = [(x, one) for x, one in zip(xs, estimates, strict=True) if one is not None]
        _marks(ax, [x for x, _ in there], [one for _, one in there], number, label, line=True)


def _marks(ax: Any, xs: Sequence[float], found: Sequence[Estimate], number: int, label: str, *, line: bool) -> None:
    ends = [one.ci95 or (one.mean, one.mean) for one in found]
    below = [max(one.mean - low, 0.0) for one, (low, _) in zip(found, ends, strict=True)]
    above = [max(high - one.mean, 0.0) for one, (_, high) in zip(found, ends, strict=True)]
    ax.errorbar(
        xs,
        [one.mean for one in found],
        yerr=[below, above],
        color=COLOURS[number % len(COLOURS)],
        marker=_MARKS[number % len(_MARKS)],
        markersize=4,
        linestyle="-" if line else "none",
        linewidth=1.2,
        elinewidth=1,
        capsize=2,
        label=label,
    )


def draw_metrics(results: Results, path: Path) -> None:
    """Every metric in a panel of its own: the rows' means with their intervals."""
    rows = results.rows
    metrics = results.metrics(rows)
    with _panels(path, len(metrics), size=(3.0, 3.0)) as panels:
        for ax, metric in zip(panels, metrics, strict=True):
            _panel(ax, results, rows, metric)


def draw_decoded_and_metrics(results: Results, path: Path) -> None:
    """How well features are decoded above, the metrics below."""
    rows = results.rows
    metrics, features = results.metrics(rows), results.features(rows)
    with axes(path, 1, size=(max(2.3 * len(metrics), 7.0), 3.2), n_rows=2) as grid:
        top, below = grid[0, 0], grid[1, 0]
        dots(
            top,
            features,
            {row.label: [results.estimate(row, f"decoded.{name}") for name in features] for row in rows},
            chance=[results.chance(rows[0].cell, f"decoded.{name}") for name in features],
        )
        top.set_ylabel("pattern correlation")
        top.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        labels = [f"{METRICS[name].label} {'↑' if METRICS[name].sign > 0 else '↓'}" for name in metrics]
        dots(below, labels, {row.label: [results.estimate(row, name) for name in metrics] for row in rows})


def draw_gains(results: Results, path: Path) -> None:
    """What stage 2 adds to stage 1 in per cent, metric by metric, row by row."""
    rows = [row for row in results.rows if row.kind == GAIN]
    metrics = results.metrics(rows)
    with axes(path, 1, size=(max(1.5 * len(metrics), 6.0), 3.4)) as grid:
        ax = grid[0, 0]
        labels = [METRICS[name].label for name in metrics]
        dots(ax, labels, {row.label: [results.estimate(row, name) for name in metrics] for row in rows}, zero=True)
        ax.set_ylabel("improvement over stage 1, %")
        ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def draw_curves(
    results: Results, path: Path, lines: Mapping[str, Sequence[tuple[float, Row]]], x_label: str, *, log: bool = False
) -> None:
    """Every metric in a panel of its own over some number; label -> (x, row) in their order."""
    metrics = results.metrics([row for points in lines.values() for _, row in points])
    with _panels(path, len(metrics), size=(3.0, 2.6)) as panels:
        for ax, metric in zip(panels, metrics, strict=True):
            for number, (label, points) in enumerate(lines.items()):
                there = [(x, one) for x, row in points if (one := results.estimate(row, metric)) is not None]
                _marks(ax, [x for x, _ in there], [one for _, one in there], number, label, line=True)
            ax.set_title(f"{METRICS[metric].label} {'↑' if METRICS[metric].sign > 0 else '↓'}", fontsize=9)
            ax.set_xlabel(x_label)
            if log:
                ax.set_xscale("log")
                ticks = sorted({x for points in lines.values() for x, _ in points})
                ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
                ax.set_xticks([], minor=True)
        if len(lines) > 1 and panels:
            panels[0].legend(frameon=False, fontsize=8)


def _panel(ax: Any, results: Results, rows: Sequence[Row], metric: str) -> None:
    dots(ax, [row.label for row in rows], {"": [results.estimate(row, metric) for row in rows]})
    ax.set_title(f"{METRICS[metric].label} {'↑' if METRICS[metric].sign > 0 else '↓'}", fontsize=9)
