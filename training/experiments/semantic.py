"""The weight of the semantic term in stage 2's loss, lambda of eq. 6 (Table 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import put_in
from .base import Cell, Claim, Row
from .cells import fit_and_run, run_settings
from .experiment import Experiment
from .figure import draw_gains
from .paper import TABLE_8
from .results import GAIN
from .steps import Fit
from .subject import Plan, Subject

LAMBDAS = ("0", "0.1", "0.5", "1")


def _name(weight: str) -> str:
    return f"lambda-{weight}"


def cells(_subject: Subject, plan: Plan) -> list[Cell]:
    """One fit, and a run of it for each lambda."""
    settings, fit = run_settings(plan), Fit()
    return [
        fit_and_run(
            _name(weight),
            f"λ = {weight}",
            fit,
            replace(settings, refine=replace(settings.refine, semantic_weight=float(weight))),
            plan,
            decoded=False,
        )
        for weight in LAMBDAS
    ]


def rows(_modalities: Sequence[str], _plan: Plan) -> list[Row]:
    return [Row(key=_name(weight), label=f"λ = {weight}", cell=_name(weight), kind=GAIN) for weight in LAMBDAS]


def claims(_modalities: Sequence[str]) -> list[Claim]:
    """A large lambda costs low-level metrics; a small one keeps high-level ones from falling."""

    def claim(text: str, metric: str, more: str, less: str) -> Claim:
        column = f"{metric}.stage2"
        return Claim(text=text, source="Table 8", more=(_name(more), column), less=(_name(less), column))

    return [
        claim("PixCorr is higher with λ = 0.1 than with 0.5", "pixcorr", "0.1", "0.5"),
        claim("PixCorr is higher with λ = 0.1 than with 1", "pixcorr", "0.1", "1"),
        claim("SSIM is higher with λ = 0.1 than with 1", "ssim", "0.1", "1"),
        claim("CLIP is higher with λ = 0.1 than with 0", "clip_two_way", "0.1", "0"),
        claim("CLIP is higher with λ = 1 than with 0", "clip_two_way", "1", "0"),
    ]


SEMANTIC = Experiment(
    name="semantic",
    title="The weight of the semantic term in stage 2",
    source="Table 8",
    question="Stage 2 may trade meaning for structure: what does a semantic term of weight λ in its loss change? "
    "Values are what stage 2 adds to stage 1. λ of the refiner guided weighs terms that are relative to their targets' "
    "sizes, so that its scale is not the paper's.",
    modalities=("fmri", "eeg", "meg"),
    cells=cells,
    rows=rows,
    figure=draw_gains,
    put_in=put_in.strength,
    paper=TABLE_8,
    claims=claims,
)
