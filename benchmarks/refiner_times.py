"""Seconds and costs of the guided refiner against the paper's setting, and whether they are what was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from costs import FULL, ways
from full_size import random_models
from refiner_contestants import PAPER, Contestant, contestants
from refiner_runs import BATCH, DECODED, Batch, Say, Subject, reconstruct
from timing import Seconds, interleaved, median_ms, speedup

from minddiffuser.runtime.refine.costs import Costs, adam_cost
from minddiffuser.runtime.sampling import Sampling

# Of the paper's 61 evaluations so many are timed; each costs the same.
EVALUATIONS = 2
SECONDS_ASKED = {"default": 6.0, "single": 18.0}
COSTS_ASKED = {"default": 12.0, "single": 40.0}


def time_refiners(subject: Subject, *, repeats: int, say: Say) -> dict[str, Any]:
    """Time the paper's setting, the default and a single pass in turn, count all three at SD 1.4's size, and print.

    One batch of the subject's first trials, in this process, with as many threads as it was given. Of the paper's
    60 updates one is timed, which makes 2 evaluations of the loss with its gradient, and the time is multiplied by
    61 / 2; activations are kept, as in every run of this size.
    """
    batch = Batch(subject, range(min(BATCH, len(subject))))
    known = contestants(subject.backend.costs, subject.sampling)
    short = replace(known["paper"], settings=replace(PAPER, steps=EVALUATIONS - 1))
    batch.problem(DECODED, short)  # decoded, and stage 1, before the clock runs
    timed = {"paper": short, "default": known["default"], "single": known["single"]}
    say(f"timing {', '.join(timed)} on {len(batch.trials)} trials, {repeats} turns after a first")
    contestant_work = {name: _work(batch, contestant) for name, contestant in timed.items()}
    seconds = scaled(interleaved(contestant_work, repeats), (PAPER.steps + 1) / EVALUATIONS)
    ratios = {name: speedup(seconds[name], seconds["paper"]) for name in SECONDS_ASKED}
    per_trial = {name: median_ms(taken) / 1e3 / len(batch.trials) for name, taken in seconds.items()}
    for name, spent in per_trial.items():
        print(f"{name:<8} {spent:8.3f} s a trial")
    verdicts = [verdict(f"seconds, tiny world, {name}", ratios[name], asked) for name, asked in SECONDS_ASKED.items()]
    full = {way: cost_ratios(costs, subject.sampling) for way, costs in ways(random_models("meta")).items()}
    verdicts += [
        verdict(f"cost, {FULL}, {way}, {name} against {rival}", found[rival][name], asked)
        for way, found in full.items()
        for rival in found
        for name, asked in COSTS_ASKED.items()
    ]
    for one in verdicts:
        word = "met" if one["met"] else "MISSED"
        print(f"{word:<8}{one['times_less']:7.1f} x less, asked {one['asked']:g}: {one['goal']}")
    return {"seconds per trial": per_trial, "verdicts": verdicts}


def _work(batch: Batch, contestant: Contestant) -> Callable[[], Any]:
    return lambda: reconstruct(batch, contestant, DECODED)


def scaled(seconds: Seconds, times: float) -> Seconds:
    """The paper's few evaluations taken as all of them."""
    return {name: [one * times for one in taken] if name == "paper" else taken for name, taken in seconds.items()}


def cost_ratios(costs: Costs, sampling: Sampling) -> Mapping[str, Mapping[str, float]]:
    """How many times less the default and a single pass cost than each form of the paper's setting, beside stage 1."""
    known = contestants(costs, sampling)
    ours = {name: known[name].cost(costs, sampling) for name in COSTS_ASKED}
    forms = {"activations kept": False, "checkpoints": True} if not costs.engines else {"engines": False}
    return {
        form: {name: _paper(costs, sampling, checkpointing) / cost for name, cost in ours.items()}
        for form, checkpointing in forms.items()
    }


def _paper(costs: Costs, sampling: Sampling, checkpointing: bool) -> float:
    at = costs.at_guidance(sampling.guidance_scale)
    return adam_cost(at, steps=PAPER.steps, n_reverse=sampling.n_reverse, checkpointing=checkpointing)


def verdict(goal: str, times_less: float, asked: float) -> dict[str, Any]:
    return {"goal": goal, "times_less": times_less, "asked": asked, "met": times_less >= asked}
