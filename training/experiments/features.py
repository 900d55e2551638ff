"""What each decoded feature is worth: runs without one of them (Table 6)."""

from __future__ import annotations

from collections.abc import Sequence

from ...runtime.run.ablation import without
from ...runtime.run.without import WITHOUT
from . import put_in
from .base import Cell, Row
from .cells import fit_and_run, run_settings
from .experiment import Experiment
from .figure import draw_metrics
from .paper import TABLE_6
from .steps import Fit
from .subject import Plan, Subject

_LABELS = {"context": "without c", "latent": "without z", "structure": "without structure"}
_FULL = "full"


def cells(_subject: Subject, plan: Plan) -> list[Cell]:
    """One fit, and a run of it without each feature; without the structure there is stage 1 alone."""
    fit, settings = Fit(), run_settings(plan)
    made = [fit_and_run(_FULL, "full model", fit, settings, plan, decoded=False)]
    for name in WITHOUT:
        own = run_settings(plan, stage=1) if name == "structure" else settings
        made.append(fit_and_run(f"without-{name}", _LABELS[name], fit, without(own, (name,)), plan, decoded=False))
    return made


def rows(_modalities: Sequence[str], _plan: Plan) -> list[Row]:
    return [
        *(
            Row(
                key=f"without-{name}",
                label=_LABELS[name],
                cell=f"without-{name}",
                kind="stage1" if name == "structure" else "stage2",
                against=_FULL,
            )
            for name in WITHOUT
        ),
        Row(key=_FULL, label="full model", cell=_FULL),
    ]


FEATURES = Experiment(
    name="features",
    title="Reconstruction without one of the decoded features",
    source="Table 6",
    question="What are the context c, the latent z and the structure each worth? Without c the empty caption takes its "
    "place; without z sampling begins from noise alone; without the structure there is no stage 2.",
    modalities=("fmri", "eeg", "meg"),
    cells=cells,
    rows=rows,
    figure=draw_metrics,
    put_in=put_in.features,
    paper=TABLE_6,
    metrics_down=True,
)
