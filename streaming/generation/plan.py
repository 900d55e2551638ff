"""How much a picture gets of both stages, so that it is there in time: from what each step costs on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...runtime.refine.settings import GuidedSettings
from ...runtime.sampling import SAMPLINGS, Sampling
from .pace import Pace

# Stage 1, from the published sampling down; the fewer steps, the less noise they begin with.
STAGE1: tuple[Sampling, ...] = (
    SAMPLINGS["published"],
    SAMPLINGS["near"],
    Sampling(n_steps=12, n_noise=None, n_reverse=4),
    Sampling(n_steps=6, n_noise=None, n_reverse=2),
)
# The first picture comes within this share of the time.
STAGE1_SHARE = 0.25
# Steps vary in what they cost: this share of the time is planned for.
_PLANNED = 0.9
# While nothing newer waits, so many start noises are tried in all: after that, more hardly help.
MOST_CANDIDATES = 12


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done for one picture, in this order; what was done of it makes the picture again.

    Attributes
    ----------
    sampling
        Of stage 1.
    refine
        Of stage 2, its `candidates` those after which the picture counts as finished. None: stage 1 alone.
    most_candidates
        How many are tried where there is time.
    fits
        Whether all this was expected to be done in time.
    """

    sampling: Sampling
    refine: GuidedSettings | None
    most_candidates: int
    fits: bool = True

    def as_json(self) -> dict[str, Any]:
        """The plan for the session's folder."""
        return {
            "sampling": asdict(self.sampling),
            "refine": None if self.refine is None else asdict(self.refine),
            "most_candidates": self.most_candidates,
            "fits": self.fits,
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Plan:
        """Read what :meth:`as_json` gives; InputError where a value is outside its range."""
        refine = content["refine"]
        if refine is not None:
            weights = refine["layer_weights"]
            refine = GuidedSettings(
                **{**refine, "layer_weights": weights if isinstance(weights, str) else tuple(weights)}
            )
        return Plan(
            sampling=Sampling(**content["sampling"]),
            refine=refine,
            most_candidates=content["most_candidates"],
            fits=content["fits"],
        )


def whole_plan(refine: GuidedSettings | None, sampling: Sampling) -> Plan:
    """Everything that the settings say, where no deadline is given."""
    return Plan(sampling=sampling, refine=refine, most_candidates=0 if refine is None else refine.candidates or 1)


def plan_for(seconds: float, pace: Pace, refine: GuidedSettings | None, sampling: Sampling) -> Plan:
    """Choose stage 1's steps, and stage 2's steps and candidates, for a time.

    Stage 1 is the richest that takes at most `STAGE1_SHARE` of it, or the shortest. Of stage 2 the first of
    :func:`variants` of which one candidate fits into the rest gets as many as fit; where none does, the shortest, which
    then goes on after the deadline.

    Parameters
    ----------
    seconds
        That are left.
    pace
        Of this machine.
    refine
        What a person chose for stage 2, at most as many candidates as fit are taken; None: stage 1 alone.
    sampling
        What a person chose for stage 1.
    """
    planned = _PLANNED * seconds
    richest = [sampling, *(one for one in STAGE1 if one.n_reverse < sampling.n_reverse)]
    chosen = next((one for one in richest if pace.stage1(one) <= STAGE1_SHARE * planned), richest[-1])
    chosen = replace(chosen, guidance_scale=sampling.guidance_scale)
    left = planned - pace.stage1(chosen)
    if refine is None:
        return Plan(sampling=chosen, refine=None, most_candidates=0, fits=left >= 0)
    for settings in variants(refine):
        once, each = pace.once(settings), pace.candidate(settings, chosen)
        if once + each <= left:
            fitting = int((left - once) / each) if each > 0 else MOST_CANDIDATES
            most = max(MOST_CANDIDATES, settings.candidates or 1)
            return Plan(
                sampling=chosen,
                refine=replace(settings, candidates=min(fitting, settings.candidates or 1)),
                most_candidates=most,
            )
    return Plan(
        sampling=chosen, refine=replace(variants(refine)[-1], candidates=1), most_candidates=MOST_CANDIDATES, fits=False
    )


def variants(refine: GuidedSettings) -> tuple[GuidedSettings, ...]:
    """A person's settings of stage 2, and shorter ones: the preset `single`, then half and a fifth of its steps."""
    shorter = [
        replace(refine, start_steps=n, finish_steps=n, n_steps=n_steps, strength=0.32)
        for n, n_steps in ((10, 25), (5, 12), (2, 6))
    ]
    least = refine.start_steps + refine.finish_steps
    return (refine, *(one for one in shorter if one.start_steps + one.finish_steps < least))
