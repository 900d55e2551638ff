"""How much of the structure should be trusted: the best k per cent of each layer (Fig. 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import put_in
from .base import Cell, Claim, Row
from .cells import fit_and_run, run_settings
from .experiment import Experiment
from .figure import draw_curves
from .results import Results
from .steps import Fit
from .subject import Plan, Subject

PERCENTS = (5, 10, 25, 50, 100)
_BEST = 25


def _name(percent: int) -> str:
    return f"k-{percent}"


def cells(_subject: Subject, plan: Plan) -> list[Cell]:
    """One fit that keeps everything, and a run of it for each k, which trusts the best k per cent of that."""
    fit = Fit(name="ridge-all-structure", percent=float(max(PERCENTS)))
    return [
        fit_and_run(_name(k), f"k = {k} %", fit, replace(run_settings(plan), percent=float(k)), plan, decoded=False)
        for k in PERCENTS
    ]


def rows(_modalities: Sequence[str], _plan: Plan) -> list[Row]:
    return [
        Row(key=_name(k), label=f"k = {k} %", cell=_name(k), against=None if k == _BEST else _name(_BEST))
        for k in PERCENTS
    ]


def claims(_modalities: Sequence[str]) -> list[Claim]:
    """The figure's sentence, that 25 % is best in all metrics, against both ends."""
    return [
        Claim(
            text=f"{label} is higher with {_BEST} % than with {k} %",
            source="Fig. 8",
            more=(_name(_BEST), f"{metric}.stage2"),
            less=(_name(k), f"{metric}.stage2"),
        )
        for metric, label in (("pixcorr", "PixCorr"), ("ssim", "SSIM"), ("clip_two_way", "CLIP"))
        for k in (min(PERCENTS), max(PERCENTS))
    ]


def figure(results: Results, path: Path) -> None:
    lines = {"": [(float(row.cell.partition("-")[2]), row) for row in results.rows]}
    draw_curves(results, path, lines, "k, % of each layer", log=True)


RETENTION = Experiment(
    name="retention",
    title="How much of the structure is trusted",
    source="Fig. 8",
    question="Stage 2 follows the best-decoded k per cent of each structural layer: which k is best? All k share one "
    "fit, since a ridge decodes each dimension by itself.",
    modalities=("fmri", "eeg", "meg"),
    cells=cells,
    rows=rows,
    figure=figure,
    put_in=put_in.strength,
    claims=claims,
)
