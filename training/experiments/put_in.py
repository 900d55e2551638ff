"""What the simulator decided of a result, in sentences beside it: a simulated subject cannot find what was put in.

Numbers come from the simulator's own tables, so that they say what it does.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..simulate.eeg import EEG
from ..simulate.fmri import AREAS, GROUPS, FmriSettings
from ..simulate.meg import MEG
from ..simulate.sources import PLACES


def areas(brain: str) -> list[str]:
    """What drives the simulated areas."""
    shallow = [name for name, area in AREAS.items() if min(area.structural) == 1.0]
    mixed = {name: area.structural for name, area in AREAS.items() if 0.0 < max(area.structural) < 1.0}
    deep = [name for name, area in AREAS.items() if max(area.structural) == 0.0]
    low = "shallow CLIP layers, of those that are decoded," if brain == "clip" else "oriented filters and local colour"
    high = (
        "the caption's text embedding and CLIP's penultimate layer" if brain == "clip" else "the labels of the picture"
    )
    parts = ", ".join(
        f"{name} ({round(100 * a)} to {round(100 * b)} % of the former)" for name, (a, b) in mixed.items()
    )
    return [
        f"The simulator decides which area holds what. {', '.join(shallow)} hold {low} and nothing of its meaning; "
        f"{', '.join(deep)} hold {high} alone; both are mixed in {parts}.",
        f"LVC is {', '.join(GROUPS['LVC'])}, {_n('LVC'):,} voxels; HVC is {', '.join(GROUPS['HVC'])}, {_n('HVC'):,}. "
        "The tiny world's pictures show few things in few colours and places, so that low-level areas tell much of the "
        "meaning too, and high-level areas, whose labels name the colours, much of how a picture looks.",
    ]


def features(modality: str, brain: str) -> list[str]:
    """What the simulator says of the three features."""
    said = areas(brain) if modality == "fmri" else [sensors()]
    return [
        *said,
        "How much each feature is worth was not put in, but follows from how well it can be decoded and from the tiny "
        "world, whose captions name thing, colour and place, and not where the thing is.",
    ]


def strength(modality: str, _brain: str) -> list[str]:
    """How well anything can be decoded."""
    if modality == "fmri":
        usual = FmriSettings()
        return [
            "What was put in is how well anything can be decoded at all: the median voxel's signal-to-noise ratio in "
            f"one showing is {usual.snr:g}, and a test trial is the mean of {usual.test_repetitions} showings, unless "
            "others were asked for."
        ]
    return [sensors()]


def linear(modality: str, brain: str) -> list[str]:
    """How responses depend on the features, which decides what a decoder that is not linear can gain."""
    if modality == "fmri":
        kind = (
            "weighted sums of the features that are decoded, compressed by an arcsinh: close to linear, so that a "
            "network can gain little over the linear model"
            if brain == "clip"
            else "pooled energies of filters, and labels, compressed by an arcsinh: not linear in what is decoded"
        )
        return [
            f"The simulator decides how responses depend on a picture: voxels are {kind}.",
            *strength(modality, brain),
        ]
    return [sensors()]


def sensors() -> str:
    """How EEG and MEG of one simulated person differ."""
    n_dipoles = sum(area.n_voxels for area in AREAS.values())
    structure = [PLACES[name].structural_s for name, area in AREAS.items() if max(area.structural) > 0.0]
    meaning = [PLACES[name].semantic_s for name, area in AREAS.items() if min(area.structural) < 1.0]
    return (
        f"Simulated EEG and MEG record the same {n_dipoles:,} dipoles as the simulated fMRI, through a forward model "
        "of a spherical head: what they cannot tell follows from the physics and from the noise. Put in are the time "
        f"courses (structure peaks at {_ms(structure)}, meaning at {_ms(meaning)}), the noise, how often pictures are "
        f"shown (EEG every {EEG.soa_s:g} s, MEG every {MEG.soa_s:g} s), and how many showings a test trial is the mean "
        f"of (EEG {EEG.test_repetitions}, MEG {MEG.test_repetitions}), unless others were asked for."
    )


def _ms(seconds: Sequence[float]) -> str:
    return f"{1000 * min(seconds):.0f} to {1000 * max(seconds):.0f} ms"


def places_and_moments(modality: str, brain: str) -> list[str]:
    """What the simulator says of where and when things are."""
    if modality == "fmri":
        return [
            *areas(brain),
            "So that the decoders of c weigh high-level areas and those of the structure low-level ones was put in; "
            "where z is read from was not, but follows from what its dimensions have in common with both.",
        ]
    return [
        sensors(),
        "So when structure and meaning peak, and that meaning comes later, was put in and is no finding, as is the "
        "smoothing of 100 ms by the windows. How EEG and MEG compare follows from the physics, the noise and the "
        "number of showings.",
    ]


def _n(group: str) -> int:
    return sum(AREAS[name].n_voxels for name in GROUPS[group])
