"""Who is in the bench of refiners: the package's own, with the names that the tables use, and the rivals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from refiner_rivals import RawScaleSettings, StartNoiseSettings, raw_scale, start_noise

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.refine import refine
from minddiffuser.runtime.refine.base import OnStep, Problem, Refined
from minddiffuser.runtime.refine.costs import Costs, adam_cost, guided_cost, stage1_cost
from minddiffuser.runtime.refine.settings import PRESETS, AdamSettings, GuidedSettings, RefineSettings
from minddiffuser.runtime.sampling import Sampling

SINGLE, DEFAULT, PAPER = PRESETS["single"], PRESETS["default"], PRESETS["paper"]
assert isinstance(SINGLE, GuidedSettings)
assert isinstance(DEFAULT, GuidedSettings)
assert isinstance(PAPER, AdamSettings)
STAGE1 = "stage1"
# Settings that a run has and this bench does not use.
NOT_HERE = {
    "seed": "the start noise is the bench's, the same for all",
    "budget": "give candidates",
    "deadline": "give candidates",
}


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way to a picture.

    Attributes
    ----------
    name, label
        In options and files, and in tables.
    settings
        None: stage 1.
    refine
        What runs them.
    targeted
        Whether its picture depends on a target; if not, it is made once for all conditions.
    heavy
        Whether it takes so long that it gets only the first trials.
    """

    name: str
    label: str
    settings: RefineSettings | None
    refine: Callable[[Problem[Any], Any, OnStep], Refined[Any]] = refine
    targeted: bool = True
    heavy: bool = False

    def cost(self, costs: Costs, sampling: Sampling) -> float:
        """Of a picture, in UNet forward passes; of a refiner beside stage 1, activations kept where it is PyTorch's."""
        settings, at = self.settings, costs.at_guidance(sampling.guidance_scale)
        if settings is None:
            return stage1_cost(at, sampling.n_reverse)
        if isinstance(settings, AdamSettings):
            return adam_cost(
                at, steps=settings.steps, n_reverse=sampling.n_reverse, backprop_steps=settings.backprop_steps
            )
        # These take guidance into account themselves.
        if isinstance(settings, GuidedSettings):
            return guided_cost(costs, settings, sampling)
        assert isinstance(settings, RawScaleSettings | StartNoiseSettings)
        return settings.cost(costs, sampling)


def contestants() -> dict[str, Contestant]:
    """All of them by name."""
    # Not SINGLE's: it is what the ways without the Jacobian did best with.
    no_jacobian = replace(SINGLE, jacobian=False, step_size=0.06)
    mpgd = replace(
        no_jacobian, start_steps=0, finish_steps=0, semantic_weight=0.0, candidates=1, n_steps=None, strength=None
    )
    found = (
        Contestant(name=STAGE1, label="stage 1", settings=None, targeted=False),
        Contestant(
            name="start",
            label="guided's start alone",
            settings=replace(SINGLE, step_size=0.0, start_steps=0, finish_steps=0),
            targeted=False,
        ),
        Contestant(name="single", label="guided, single", settings=SINGLE),
        Contestant(name="default", label="guided, default", settings=DEFAULT),
        Contestant(name="no-jacobian", label="single, no Jacobian", settings=no_jacobian),
        Contestant(name="mpgd", label="MPGD form", settings=mpgd),
        Contestant(name="final-latent", label="Adam, final latent", settings=replace(PAPER, backprop_steps=0)),
        Contestant(name="paper", label="Adam, all steps (paper)", settings=PAPER, heavy=True),
        Contestant(
            name="raw-scale", label="raw gradient (NeuralDiffuser)", settings=RawScaleSettings(), refine=raw_scale
        ),
        Contestant(name="start-noise", label="start noise (ReNO)", settings=StartNoiseSettings(), refine=start_noise),
    )
    return {contestant.name: contestant for contestant in found}


def at_equal_cost(known: dict[str, Contestant], costs: Costs, sampling: Sampling) -> dict[str, Contestant]:
    """The same, the start noise optimised for what the default costs."""
    rival = known["start-noise"]
    assert isinstance(rival.settings, StartNoiseSettings)
    evaluation = replace(rival.settings, evaluations=1).cost(costs, sampling)
    evaluations = max(2, round(known["default"].cost(costs, sampling) / evaluation))
    return {**known, rival.name: replace(rival, settings=replace(rival.settings, evaluations=evaluations))}


def chosen(known: dict[str, Contestant], names: Sequence[str] | None, variants: Sequence[str]) -> list[Contestant]:
    """Those that were asked for, stage 1 always first, since everything is compared with it.

    Raises
    ------
    InputError
        There is no such contestant.
    """
    wanted = list(known) if names is None else list(dict.fromkeys([STAGE1, *names]))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"there is no refiner {', '.join(unknown)} in the bench: choose among {', '.join(known)}")
    return [known[name] for name in wanted] + [variant(known, text) for text in dict.fromkeys(variants)]


def variant(known: dict[str, Contestant], text: str) -> Contestant:
    """A contestant with other settings, from a text such as ``single@step_size=0.1,guided_share=0.5``.

    Values are JSON, a list where a setting is a tuple; a name needs no quotes.

    Raises
    ------
    InputError
        There is no such contestant or setting, or its value cannot be used.
    """
    name, _, changes = text.partition("@")
    base = known.get(name)
    if base is None or base.settings is None or not base.targeted or not changes:
        raise InputError(
            f"the variant {text!r} is not understood: give REFINER@SETTING=VALUE, the refiner one of "
            f"{', '.join(other.name for other in known.values() if other.targeted)}"
        )
    given: dict[str, Any] = {}
    there = {field.name for field in fields(base.settings)} - NOT_HERE.keys()
    for change in re.split(r",(?=\w+=)", changes):  # commas between settings, and not those within a list
        setting, _, value = change.partition("=")
        if setting in NOT_HERE:
            raise InputError(f"the variant {text!r} gives {setting}, which the bench does not use: {NOT_HERE[setting]}")
        if setting not in there:
            raise InputError(f"{name} has no setting {setting!r}: choose among {', '.join(sorted(there))}")
        try:
            read = json.loads(value)
        except ValueError:
            read = value
        given[setting] = tuple(read) if isinstance(read, list) else read
    return replace(base, name=text, label=f"{base.label}, {changes}", settings=replace(base.settings, **given))
