"""Which areas hold what: all voxels, without high-level cortex, without low-level cortex (Table 5, Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence

from ...runtime.errors import InputError
from ..regions import Regions
from . import put_in
from .base import Cell, Claim, Row
from .cells import fit_and_run, run_settings
from .experiment import Experiment
from .figure import draw_decoded_and_metrics
from .paper import TABLE_5
from .steps import Fit
from .subject import Plan, Subject

GROUPS = ("HVC", "LVC")
_ALL = Fit()
_FITS = {
    "all": _ALL,
    **{
        f"without-{group.lower()}": Fit(name=f"ridge-without-{group.lower()}", regions=Regions(without=(group,)))
        for group in GROUPS
    },
}
_LABELS = {"all": "all voxels", "without-hvc": "without HVC", "without-lvc": "without LVC"}


def cells(subject: Subject, plan: Plan) -> list[Cell]:
    """One fit for each choice of voxels; the structure is compared over the dimensions that all three trust."""
    missing = [group for group in GROUPS if group not in (subject.data.layout.rois or {})]
    if missing:
        raise InputError(
            f"{subject.path} has no rois {' and '.join(missing)}, which this experiment compares: name these groups of "
            "voxels in data.json"
        )
    every = tuple(_FITS.values())
    return [
        fit_and_run(name, _LABELS[name], fit, run_settings(plan), plan, common=every) for name, fit in _FITS.items()
    ]


def rows(_modalities: Sequence[str], _plan: Plan) -> list[Row]:
    return [Row(key=name, label=_LABELS[name], cell=name, against=None if name == "all" else "all") for name in _FITS]


def claims(_modalities: Sequence[str]) -> list[Claim]:
    """Fig. 7 in words, each as one comparison of the two ablations."""
    low, high = "without-hvc", "without-lvc"  # low-level areas alone, high-level areas alone

    def claim(text: str, feature: str, more: str, less: str, source: str = "Fig. 7") -> Claim:
        column = f"decoded.{feature}" if "." not in feature else feature
        return Claim(text=text, source=source, more=(more, column), less=(less, column))

    return [
        claim("c is decoded better without LVC than without HVC", "context", high, low),
        claim("the structure is decoded better without HVC than without LVC", "structure", low, high),
        *(claim(f"so is its layer {number}", f"structure {number}", low, high) for number in range(1, 7)),
        claim("z is decoded better without HVC than without LVC", "latent", low, high),
        claim("z is decoded better without HVC than from all voxels", "latent", low, "all"),
        claim("PixCorr falls further without LVC than without HVC", "pixcorr.stage2", low, high, "Table 5"),
        claim("SSIM falls further without LVC than without HVC", "ssim.stage2", low, high, "Table 5"),
    ]


ROIS = Experiment(
    name="rois",
    title="Reconstruction from different regions of the visual cortex",
    source="Table 5 and Fig. 7",
    question="What does low-level visual cortex (LVC) tell of a picture, and what high-level visual cortex (HVC)? "
    "Decoders are fitted anew to the voxels that are left.",
    modalities=("fmri",),
    cells=cells,
    rows=rows,
    figure=draw_decoded_and_metrics,
    put_in=lambda _modality, brain: put_in.areas(brain),
    paper=TABLE_5,
    claims=claims,
    decoded=True,
    metrics_down=True,
)
