"""What is read from where and when: voxels and regions, channels and moments (section 4.6, Fig. 9)."""

from __future__ import annotations

from collections.abc import Sequence

from ...runtime.errors import InputError, MissingExtra
from ..interpret.topography import has_places
from ..interpret.windows import windows
from . import put_in
from .base import Cell, Row, Step
from .experiment import Experiment
from .interpreted.claims import judged
from .interpreted.figure import draw, drawings
from .interpreted.notes import notes
from .interpreted.tables import tables
from .reading import N_DIMENSIONS, Heads, Surface, Weights, Windows, measure_voxels, measure_windows, volumes_known
from .steps import Fit
from .subject import Plan, Subject

_SIGNALS = {"fmri": "fMRI", "eeg": "EEG", "meg": "MEG"}
_FIT = Fit()


def cells(subject: Subject, plan: Plan) -> list[Cell]:
    """One cell: the fit, the importance of its responses, maps of it, and of EEG and MEG the windows."""
    n_dimensions, seed = None if plan.full else N_DIMENSIONS, plan.seeds[0]
    steps: list[Step] = [_FIT, Weights(fit=_FIT, n_dimensions=n_dimensions, seed=seed)]
    if subject.modality == "fmri":
        if plan.surface is not None:
            steps.append(Surface(surface=plan.surface))
        measure = measure_voxels
    else:
        if has_places(subject.data.layout):
            steps.append(Heads())
        steps.append(Windows(n_dimensions=n_dimensions, seed=seed))
        measure = measure_windows
    name = subject.modality
    return [Cell(name=name, label=_SIGNALS[name], steps=tuple(steps), measure=measure)]


def rows(modalities: Sequence[str], _plan: Plan) -> list[Row]:
    return [Row(key=name, label=_SIGNALS[name], cell=name, kind="importance") for name in modalities]


def check(subjects: Sequence[Subject], plan: Plan) -> None:
    """Refuse regions that are not named, epochs that are too short, a surface that nothing can be drawn on.

    Raises
    ------
    InputError
        For any of these, and for several seeds: nothing here begins from noise.
    MissingExtra
        A library is missing that draws.
    FileError
        A file of the surface is missing.
    """
    if len(plan.seeds) > 1:
        raise InputError(
            f"the experiment interpretation was given {len(plan.seeds)} seeds, and makes no pictures: give one --seed, "
            "by which dimensions are drawn"
        )
    of_fmri = [subject for subject in subjects if subject.modality == "fmri"]
    for subject in subjects:
        layout = subject.data.layout
        if subject.modality != "fmri":
            windows(layout)
            if has_places(layout):
                _require("mne", "maps of the head need MNE")
        elif not layout.rois:
            raise InputError(
                f"{subject.path} has no rois, whose importance this experiment compares: name groups of voxels in "
                "data.json"
            )
        elif volumes_known(subject):
            _require("nibabel", "maps of voxels need nibabel")
    if plan.surface is None:
        return
    from ..interpret.surface import TEMPLATE, check_surface

    check_surface(plan.surface)
    if not of_fmri:
        raise InputError("--surface draws maps of fMRI, and there are no such data: leave it out")
    unknown = [subject for subject in of_fmri if not volumes_known(subject)]
    if unknown:
        raise InputError(
            f"--surface needs to know where the voxels lie, and {unknown[0].path} does not say it: leave it out, or "
            "give data of md-train prepare nsd"
        )
    if plan.surface != TEMPLATE and len(of_fmri) > 1:
        raise InputError(
            f"--surface names one subject's files, and there are {len(of_fmri)} subjects of fMRI: run the experiment "
            f"once for each, with an --out of its own, or give {TEMPLATE} for volumes in MNI space"
        )


def _require(library: str, what: str) -> None:
    from importlib.util import find_spec

    if find_spec(library) is None:
        raise MissingExtra(f"{what}: pip install 'minddiffuser[figures]'")


INTERPRETATION = Experiment(
    name="interpretation",
    title="What is read from where, and when",
    source="section 4.6 and Fig. 9",
    question="Which voxels do the linear decoders of c, z and structure weigh most? From which moments of EEG and MEG "
    "can the meaning and the structure of a picture be read?",
    modalities=("fmri", "eeg", "meg"),
    mixed=True,
    cells=cells,
    rows=rows,
    figure=draw,
    put_in=put_in.places_and_moments,
    check=check,
    n_trials=None,
    tables=tables,
    judged=judged,
    notes=notes,
    how="ridges of every feature; nothing is reconstructed",
    caption="Above, importance of the voxels of each region relative to an even spread (1), with 95 % intervals over "
    "voxels; grey marks: 95 % of random sets of as many voxels lie below. Below, how often the picture is found among "
    "all test pictures from windows of 100 ms, at their middles, with 95 % intervals over pictures; dotted: chance.",
    drawings=drawings,
    surfaces=True,
)
