"""Pictures during stage 2: their metrics after so many iterations, for both refiners (Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...runtime.refine.settings import PRESETS, AdamSettings, GuidedSettings, RefineSettings
from ...runtime.sampling import Sampling
from . import put_in
from .base import Cell, Claim, Row
from .cells import run_settings
from .experiment import Experiment
from .figure import draw_curves
from .frames import MeasureFrames, marks
from .results import Results
from .steps import Fit, Run
from .subject import Plan, Subject

# Of Adam: what the paper gives most methods of its Table 4; with `plan.full` the sixty of its own setting.
_STEPS = 30
_LABELS = {"adam": "Adam", "guided": "guided"}


def _refine(refiner: str, plan: Plan) -> RefineSettings:
    if refiner == "guided":  # one pass: candidates do not follow each other, but run beside each other
        return PRESETS["single"]
    paper = PRESETS["paper"]
    assert isinstance(paper, AdamSettings)  # it is the paper's
    return paper if plan.full else replace(paper, steps=_STEPS)


def _frames(refiner: str, plan: Plan) -> tuple[int, ...]:
    """Frames that are kept, counted from 1."""
    refine = _refine(refiner, plan)
    if isinstance(refine, GuidedSettings):
        sampling = Sampling()
        return marks(refine.n_start + refine.n_guided(sampling) + refine.n_finish)
    return marks(refine.n_reports(Sampling()))


def cells(_subject: Subject, plan: Plan) -> list[Cell]:
    """One fit, and a run with each refiner, whose pictures on the way are kept."""
    fit, made = Fit(), []
    for refiner, label in _LABELS.items():
        settings = run_settings(plan, _refine(refiner, plan))
        runs = tuple(
            Run(
                name=f"{refiner}-{seed}",
                fit=fit,
                settings=replace(settings, controls="none", refine=replace(settings.refine, seed=seed)),
                frames=_frames(refiner, plan),
            )
            for seed in plan.seeds
        )
        made.append(Cell(name=refiner, label=label, steps=(fit, *runs), measure=MeasureFrames(runs=runs)))
    return made


def rows(_modalities: Sequence[str], plan: Plan) -> list[Row]:
    found = []
    for refiner, label in _LABELS.items():
        first = f"{refiner}.stage1"
        found.append(Row(key=first, label=f"{label}: stage 1", cell=refiner, kind="stage1"))
        found += [
            Row(
                key=f"{refiner}.{number}",
                label=f"{label}: {_called(refiner, number)}",
                cell=refiner,
                kind=f"frame{number}",
                against=first,
            )
            for number in _frames(refiner, plan)
        ]
        found.append(Row(key=f"{refiner}.end", label=f"{label}: kept picture", cell=refiner, against=first))
    return found


def _called(refiner: str, number: int) -> str:
    """Adam's first picture is that of no update."""
    return f"iteration {number - 1}" if refiner == "adam" else f"step {number}"


def claims(_modalities: Sequence[str]) -> list[Claim]:
    """The figure's trend: with iterations the low-level metrics rise."""
    return [
        Claim(
            text=f"{label} of the kept picture is higher than that of stage 1 ({_LABELS[refiner]})",
            source="Fig. 6",
            more=(refiner, f"{metric}.stage2"),
            less=(refiner, f"{metric}.stage1"),
        )
        for refiner in _LABELS
        for metric, label in (("pixcorr", "PixCorr"), ("ssim", "SSIM"))
    ]


def figure(results: Results, path: Path) -> None:
    by_key = {row.key: row for row in results.rows}
    lines = {}
    for refiner, label in _LABELS.items():
        numbers = _frames(refiner, results.plan)
        keyed = [(0.0, f"{refiner}.stage1"), *((float(n), f"{refiner}.{n}") for n in numbers)]
        keyed.append((numbers[-1] + 1.0, f"{refiner}.end"))
        lines[label] = [(x, by_key[key]) for x, key in keyed if key in by_key]
    draw_curves(results, path, lines, "step of stage 2")


ITERATIONS = Experiment(
    name="iterations",
    title="Pictures during stage 2",
    source="Fig. 6",
    question="How do the pictures change with the iterations of stage 2? Adam, the paper's, goes through all denoising "
    "steps at each iteration; guided moves the decoded latent first, then samples under guidance, then finishes the "
    "picture, and its step is one of these. Adam makes 30 "
    "iterations (60 with --full, as the paper's own setting), and guided is the preset single, both without controls.",
    modalities=("fmri", "eeg", "meg"),
    cells=cells,
    rows=rows,
    figure=figure,
    put_in=put_in.strength,
    claims=claims,
)
