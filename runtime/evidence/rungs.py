"""The rungs between floor and ceiling: one line here for each, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FLOOR, CEILING = "floor", "oracle"
_NOT_ASKED = "the run was not asked for it: give --controls {}"


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A kind of picture that is compared with the stimuli.

    Attributes
    ----------
    name
        Its key in evidence.json.
    label, meaning
        For people.
    kinds
        Where its metrics are found among those of a run, the first that there is.
    absent
        Why it may be missing, where the run says nothing else.
    """

    name: str
    label: str
    meaning: str
    kinds: tuple[str, ...]
    absent: str


RUNGS = (
    Rung(
        name=FLOOR,
        label="Shuffled brain",
        meaning="the run's own pictures, each compared with the stimulus of a trial that showed something else: what "
        "pictures of this kind reach by chance",
        kinds=("stage2_floor", "stage1_floor"),
        absent="it takes trials of two pictures or more",
    ),
    Rung(
        name="generator",
        label="Generator alone",
        meaning="stage 1 without the brain: its noise and its sampling, from a typical training caption and the mean "
        "training latent, the same for every trial",
        kinds=("generator",),
        absent=_NOT_ASKED.format("generator"),
    ),
    Rung(
        name="nearest",
        label="Nearest training picture",
        meaning="nothing is generated: the training picture whose features are most similar to those decoded",
        kinds=("nearest",),
        absent=_NOT_ASKED.format("nearest"),
    ),
    Rung(
        name="stage1",
        label="Stage 1",
        meaning="the picture drawn from the decoded context and latent",
        kinds=("stage1",),
        absent="it was not measured",
    ),
    Rung(
        name="shuffled",
        label="Shuffled targets",
        meaning="stage 2 from the trial's own stage 1, refined toward the features decoded of another picture's trial: "
        "what refinement does as such",
        kinds=("shuffled",),
        absent=_NOT_ASKED.format("shuffled"),
    ),
    Rung(
        name="stage2",
        label="Stage 2",
        meaning="the run's result",
        kinds=("stage2",),
        absent="the run stopped after stage 1",
    ),
    Rung(
        name=CEILING,
        label="True features",
        meaning="stage 2 refined toward the true features of the stimulus, from the same stage 1: the ceiling of what "
        "better decoded structure could give",
        kinds=("oracle",),
        absent=_NOT_ASKED.format("oracle"),
    ),
)
BY_NAME = {rung.name: rung for rung in RUNGS}


def result_of(names: Mapping[str, Any]) -> str:
    """The rung that a run is about: stage 2, or stage 1 where it stopped there."""
    return "stage2" if "stage2" in names else "stage1"
