"""How the page speaks of each refiner: what it does to a picture, how much of it was asked for, and its loss curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..refine.settings import AdamSettings, GuidedSettings
from .contents import is_count, mapping_or_empty
from .words import counted


@dataclass(frozen=True, kw_only=True)
class RefinerWords:
    """The words for one refiner.

    Attributes
    ----------
    name
        As in settings.json.
    does
        What stage 2 does, for lay readers: a sentence that "the where" follows.
    amount, unit
        The setting that says how much it does, and what it counts.
    curve
        What the curve under a trial shows.
    point
        What a point of the curve is.
    """

    name: str
    does: str
    amount: str
    unit: str
    curve: str
    point: str

    def length(self, n_points: int) -> str:
        """How long a curve of so many points is: "60 iterations"."""
        return counted(n_points - 1, self.point)

    def fact(self, refine: Mapping[str, Any]) -> str | None:
        """How much was asked for, such as "stage 2: guided, 6 candidates"; None where the settings do not say."""
        count = refine.get(self.amount)
        return f"stage 2: {self.name}, {count} {self.unit}{'s' * (count != 1)}" if is_count(count) else None


_ADAM = RefinerWords(
    name=AdamSettings.refiner,
    does="Stage 2 then adjusts the drawing until a vision model's early features, decoded from the same recording, "
    "agree with it",
    amount="steps",
    unit="iteration",
    curve="The curve under each trial is the structural loss of stage 2 over its iterations; the dot marks the iterate "
    "that was kept.",
    point="iteration",
)
_GUIDED = RefinerWords(
    name=GuidedSettings.refiner,
    does="Stage 2 draws it again, and while the drawing emerges pulls it, step by step, toward a vision model's early "
    "features, decoded from the same recording",
    amount="candidates",
    unit="candidate",
    curve="Stage 2 draws each trial from one or more start noises, its candidates, and keeps the picture with the "
    "lowest loss; nothing looks at the stimulus. The curve under each trial is the loss of the kept candidate's clean "
    "estimate at each guided step, and its dot that of the sampled picture, which some last steps then finish.",
    point="step",
)
_BY_NAME = {words.name: words for words in (_ADAM, _GUIDED)}


def refiner_words(settings: Mapping[str, Any]) -> RefinerWords:
    """The words for the refiner of a run, given its settings.json. Runs from before there were several had `adam`."""
    refiner = mapping_or_empty(mapping_or_empty(settings.get("settings")).get("refine")).get("refiner")
    return _BY_NAME.get(refiner, _ADAM) if isinstance(refiner, str) else _ADAM
