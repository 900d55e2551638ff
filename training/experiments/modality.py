"""Kinds of signal: what both stages make of fMRI, EEG and MEG (Table 4, its rows with Stable Diffusion)."""

from __future__ import annotations

from collections.abc import Sequence

from . import put_in
from .base import Cell, Claim, Row
from .cells import STAGES, fit_and_run, run_settings
from .experiment import Experiment
from .figure import draw_metrics
from .paper import TABLE_4
from .results import GAIN
from .steps import Fit
from .subject import Plan, Subject

_SIGNALS = {"fmri": "fMRI", "eeg": "EEG", "meg": "MEG"}
_STAGE_LABELS = {"stage1": "stage 1", "stage2": "stage 2"}
# The paper's decoder of EEG and MEG, with its embedding's width.
_ATM = Fit(name="atm", decoder="atm", options={"embedding": 1024}, shared_trunk=True)


def cells(subject: Subject, plan: Plan) -> list[Cell]:
    """One fit and a run: of EEG and MEG by the ridge, with `plan.full` by ATM."""
    fit = _ATM if plan.full and subject.modality != "fmri" else Fit()
    return [fit_and_run(subject.modality, _SIGNALS[subject.modality], fit, run_settings(plan), plan)]


def rows(modalities: Sequence[str], _plan: Plan) -> list[Row]:
    return [
        Row(
            key=f"{modality}.{stage}",
            label=f"{_SIGNALS[modality]}, {_STAGE_LABELS[stage]}",
            cell=modality,
            kind=stage,
            against=None if stage == "stage1" else f"{modality}.stage1",
        )
        for modality in modalities
        for stage in STAGES
    ]


def claims(modalities: Sequence[str]) -> list[Claim]:
    """Structure is refined more where more of it is decoded; the paper's gains are shares of stage 1's mean."""
    return [
        Claim(
            text=f"by stage 2 {label} improves by a larger share with {_SIGNALS[modality]} than with EEG",
            source="Table 4",
            more=(modality, f"{metric}.{GAIN}"),
            less=("eeg", f"{metric}.{GAIN}"),
        )
        for modality in ("fmri", "meg")
        if modality in modalities and "eeg" in modalities
        for metric, label in (("pixcorr", "PixCorr"), ("ssim", "SSIM"))
    ]


MODALITY = Experiment(
    name="modality",
    title="Kinds of signal",
    source="Table 4",
    question="What do both stages make of fMRI, EEG and MEG? Stage 1 is the base model, stage 2 the base model with "
    "the paper's structural alignment.",
    modalities=("fmri", "eeg", "meg"),
    mixed=True,
    cells=cells,
    rows=rows,
    figure=draw_metrics,
    put_in=put_in.strength,
    paper=TABLE_4,
    claims=claims,
    decoded=True,
)
