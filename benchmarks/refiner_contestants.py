"""Who is in the bench of refiners: the package's own, with the names that the tables use, and the rivals."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from refiner_rivals import RawScaleSettings, StartNoiseSettings, cost_of_evaluation, raw_scale, start_noise

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
        costs, settings = costs.at_guidance(sampling.guidance_scale), self.settings
        if settings is None:
            return stage1_cost(costs, sampling.n_reverse)
        if isinstance(settings, AdamSettings):
            return adam_cost(
                costs, steps=settings.steps, n_reverse=sampling.n_reverse, backprop_steps=settings.backprop_steps
            )
        if isinstance(settings, GuidedSettings):
            return guided_cost(costs, settings, sampling)
        assert isinstance(settings, RawScaleSettings | StartNoiseSettings)
        return settings.cost(costs, sampling)


def contestants(costs: Costs, sampling: Sampling) -> dict[str, Contestant]:
    """All of them by name; the start noise is optimised for what the default costs."""
    default = Contestant(name="default", label="guided, default", settings=DEFAULT)
    noise = StartNoiseSettings()
    evaluation = cost_of_evaluation(costs.at_guidance(sampling.guidance_scale), noise.n_reverse)
    noise = replace(noise, evaluations=max(2, round(default.cost(costs, sampling) / evaluation)))
    found = (
        Contestant(name=STAGE1, label="stage 1", settings=None, targeted=False),
        Contestant(
            name="start",
            label="guided's start alone",
            settings=replace(SINGLE, step_size=0.0, start_steps=0, finish_steps=0),
            targeted=False,
        ),
        Contestant(name="single", label="guided, single", settings=SINGLE),
        default,
        Contestant(name="no-jacobian", label="guided, no Jacobian (MPGD)", settings=replace(SINGLE, jacobian=False)),
        Contestant(name="final-latent", label="Adam, final latent", settings=replace(PAPER, backprop_steps=0)),
        Contestant(name="paper", label="Adam, all steps (paper)", settings=PAPER, heavy=True),
        Contestant(
            name="raw-scale", label="raw gradient (NeuralDiffuser)", settings=RawScaleSettings(), refine=raw_scale
        ),
        Contestant(name="start-noise", label="start noise (ReNO)", settings=noise, refine=start_noise),
    )
    return {contestant.name: contestant for contestant in found}


def chosen(known: dict[str, Contestant], names: Sequence[str] | None, variants: Sequence[str]) -> list[Contestant]:
    """Those that were asked for, stage 1 always first, since everything is compared with it.

    Raises
    ------
    InputError
        There is no such contestant.
    """
    wanted = list(known) if names is None else [STAGE1, *(name for name in names if name != STAGE1)]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(f"there is no refiner {', '.join(unknown)} in the bench: choose among {', '.join(known)}")
    return [known[name] for name in wanted] + [variant(known, text) for text in variants]


def variant(known: dict[str, Contestant], text: str) -> Contestant:
    """A contestant with other settings, from a text such as ``single@step_size=0.1,guided_share=0.5``.

    Raises
    ------
    InputError
        There is no such contestant or setting, or its value cannot be used.
    """
    name, _, changes = text.partition("@")
    base = known.get(name)
    if base is None or base.settings is None or not changes:
        raise InputError(
            f"the variant {text!r} is not understood: give REFINER@SETTING=VALUE, the refiner one of "
            f"{', '.join(other for other in known if other != STAGE1)}"
        )
    given: dict[str, Any] = {}
    there = {field.name for field in fields(base.settings)}
    for change in changes.split(","):
        setting, _, value = change.partition("=")
        if setting not in there:
            raise InputError(f"{name} has no setting {setting!r}: choose among {', '.join(sorted(there))}")
        try:
            given[setting] = json.loads(value)
        except ValueError:
            raise InputError(f"the variant {text!r} gives {setting} {value!r}: give a number, true or null") from None
    return replace(base, name=text, label=f"{base.label}, {changes}", settings=replace(base.settings, **given))
