"""What decodes: the linear model, a multilayer perceptron and a transformer (Table 7)."""

from __future__ import annotations

from collections.abc import Sequence

from . import put_in
from .base import Cell, Claim, Row
from .cells import fit_and_run, run_settings
from .experiment import Experiment
from .figure import draw_gains
from .paper import TABLE_7
from .results import GAIN
from .steps import Fit
from .subject import Plan, Subject

_LABELS = {"ridge": "linear", "mlp": "MLP", "transformer": "Transformer"}
_SIGNALS = {"fmri": "fMRI", "eeg": "EEG", "meg": "MEG"}
# At most so many epochs, of which the best is kept.
_EPOCHS = 40


def _fit(decoder: str, plan: Plan) -> Fit:
    """The structure's decoder is what changes: stage 1 stays the same, as the paper's base models do."""
    if decoder == "ridge":
        return Fit()
    options = {} if plan.full else {"epochs": _EPOCHS}
    return Fit(name=decoder, decoder=decoder, options=options, of=("structure",))


def cells(subject: Subject, plan: Plan) -> list[Cell]:
    """A fit and a run for each kind of decoder."""
    return [
        fit_and_run(
            f"{subject.modality}-{decoder}",
            f"{_SIGNALS[subject.modality]}, {label}",
            _fit(decoder, plan),
            run_settings(plan),
            plan,
        )
        for decoder, label in _LABELS.items()
    ]


def rows(modalities: Sequence[str], _plan: Plan) -> list[Row]:
    return [
        Row(
            key=f"{modality}.{decoder}",
            label=f"{_SIGNALS[modality]}, {label}",
            cell=f"{modality}-{decoder}",
            kind=GAIN,
            against=None if decoder == "ridge" else f"{modality}.ridge",
        )
        for modality in modalities
        for decoder, label in _LABELS.items()
    ]


def claims(modalities: Sequence[str]) -> list[Claim]:
    """A decoder that is not linear gains more, and ends with better pictures."""
    made = []
    for modality in modalities:
        for decoder in ("mlp", "transformer"):
            what = f"{_SIGNALS[modality]}: {{}} with the {_LABELS[decoder]} than with the linear model"
            for kind, words in (
                (GAIN, "by stage 2 PixCorr improves by a larger share"),
                ("stage2", "PixCorr of stage 2 is higher"),
            ):
                made.append(
                    Claim(
                        text=what.format(words),
                        source="Table 7",
                        more=(f"{modality}-{decoder}", f"pixcorr.{kind}"),
                        less=(f"{modality}-ridge", f"pixcorr.{kind}"),
                    )
                )
    return made


FITTING = Experiment(
    name="fitting",
    title="What decodes: linear model, MLP, Transformer",
    source="Table 7",
    question="What does stage 2 add to stage 1 when the structure is decoded by a network of three layers rather than "
    "by a linear model? Stage 1 is the same in all rows of a signal.",
    modalities=("fmri", "eeg", "meg"),
    mixed=True,
    cells=cells,
    rows=rows,
    figure=draw_gains,
    put_in=put_in.linear,
    paper=TABLE_7,
    claims=claims,
    decoded=True,
)
