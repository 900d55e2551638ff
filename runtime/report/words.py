"""The page's words: what a metric, a picture and a control are, for readers who do not know them."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ..data.simulated import FIRST_BRAIN
from ..metrics import METRICS

PICTURE_WORDS = {
    "stimulus": "Stimulus",
    "stage1": "Stage 1",
    "stage2": "Stage 2",
    "oracle": "True features",
    "shuffled": "Shuffled",
    "nearest": "Nearest training",
    "generator": "No brain",
}
PICTURE_ALTS = {
    "stimulus": "The picture that was shown in trial {}",
    "stage1": "Stage 1 reconstruction of trial {}",
    "stage2": "Stage 2 reconstruction of trial {}",
    "oracle": "Trial {} refined toward the true features of its stimulus",
    "shuffled": "Trial {} refined toward the decoded features of a trial with another picture",
    "nearest": "The training picture whose features are nearest to those decoded of trial {}",
    "generator": "What the generator draws from the noise of trial {} without the brain",
}
CONTROL_WORDS = {
    "shuffled": ("Shuffled targets", "the floor: stage 2 refined toward the features of a trial with another picture"),
    "oracle": ("True features", "the ceiling: stage 2 refined toward the stimulus's own features"),
}
WORTH = "Decoded − shuffled"
WORTH_MEANING = (
    "the gain from the trial's own decoded features: stage 2 with them, minus stage 2 with those of another picture"
)
FLOOR = "Stage 1 floor"
FLOOR_MEANING = "the stage 1 picture of a trial that showed something else, compared with this trial's stimulus"
# Where targets are shuffled, a rise that they share says nothing about the brain.
NO_CLAIM = (
    "No claim about stage 2 is made here: this run has no shuffled targets to compare with, and refinement as such can "
    "change every metric. Run it with --controls shuffled."
)
TOO_FEW = "No claim about stage 2 is made here: there are too few pictures for intervals."
# Stands wherever numbers of a simulated subject are shown: what its kind of brain is made of, and what follows.
_MADE_OF = {
    "clip": "The early visual areas of this simulated subject are simulated from the same CLIP layers that stage 2 "
    "matches, which favours stage 2.",
    "gabor": "The early visual areas of this simulated subject are simulated from oriented filters and local colour, "
    "the higher ones from labels: nothing in them is taken from the networks that are used here.",
}
_ANY_BRAIN = "This subject is simulated."
_DESIGN = (
    "The numbers show that the method works as designed, not how well it would work on recordings of a real brain."
)

_STAGES = (
    "A person looks at a picture while their brain activity is recorded. From that recording alone, decoders "
    "estimate what was shown and a diffusion model draws it: that is stage 1, the <em>what</em>. {stage2}: the "
    "<em>where</em>, meaning position, size and outline."
)
_SIMULATED_PERSON = (
    "The person here is simulated, so that anyone can run this without a scanner: responses are computed from the "
    "pictures, and noise is added to them. The decoders see only the noisy responses."
)


def caveat_of(data: Mapping[str, Any]) -> str:
    """What must stand beside a simulated subject's numbers, given a run's "data"; empty for any other subject."""
    if not data.get("simulated"):
        return ""
    return f"{_MADE_OF.get(str(data.get('brain', FIRST_BRAIN)), _ANY_BRAIN)} {_DESIGN}"


def explanation(*, caveat: str, stage2: str, has_stage2: bool) -> str:
    """The explanation for lay readers (HTML).

    `caveat` is that of a simulated subject, or empty; `stage2` says what stage 2 does.
    """
    words = [_STAGES.format(stage2=escape(stage2, quote=False))] + (
        [_SIMULATED_PERSON, escape(caveat, quote=False)] if caveat else []
    )
    if not has_stage2:
        words.append("This run stopped after stage 1.")
    return " ".join(words)


def metric_label(name: str) -> str:
    """A metric's short name; an unknown one is called by its own name."""
    metric = METRICS.get(name)
    return name if metric is None else metric.label


def metric_words(name: str) -> tuple[str, str]:
    """A metric's short name and its meaning, as HTML."""
    metric = METRICS.get(name)
    meaning = "" if metric is None else metric.meaning
    if metric is not None and metric.better == "lower":
        meaning += " Lower is better."
    return escape(metric_label(name)), escape(meaning)


def direction(name: str) -> int:
    """1 where a higher value of the metric is better, -1 where a lower one is, 0 for an unknown metric."""
    metric = METRICS.get(name)
    return 0 if metric is None else metric.sign


def number_text(value: float | None, *, signed: bool = False) -> str:
    """A number with three decimals and a true minus sign, or a dash; smaller ones keep one digit that is not zero."""
    if value is None:
        return "–"
    decimals = 3
    while value and decimals < 7 and not float(f"{abs(value):.{decimals}f}"):
        decimals += 1
    text = f"{value:.{decimals}f}" if abs(value) < _LONG else f"{value:.3g}"
    if float(text) == 0:  # as good as nothing has no sign
        return "0.000"
    sign = "+" if signed and value > 0 else ""
    return (sign + text).replace("-", "−")


# From here on fixed decimals would be digits without meaning.
_LONG = 1e6


def counted(count: float, noun: str) -> str:
    """A whole number with its noun."""
    return f"{count:.0f} {noun}" + ("" if count == 1 else "s")


def interval(bounds: tuple[float | None, float | None]) -> str:
    """A 95 % interval in words, or nothing."""
    low, high = bounds
    return "" if low is None or high is None else f"{number_text(low, signed=True)} to {number_text(high, signed=True)}"
