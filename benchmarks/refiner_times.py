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

# Of the paper's 60 updates so many are timed; each costs the same.
FEW, MORE = 1, 3
SECONDS_ASKED = {"default": 6.0, "single": 18.0}
COSTS_ASKED = {"default": 12.0, "single": 40.0}


def time_refiners(subject: Subject, *, repeats: int, say: Say) -> dict[str, Any]:
    """Time the paper's setting, the default and a single pass in turn, count all three at SD 1.4's size, and print.

    One batch of the subject's first trials, in this process, with as many threads as it was given. Of the paper's
    60 updates one is timed, and three, from whose difference follows what 60 take; activations are kept, as in every
    run of this size.
    """
    batch = Batch(subject, range(min(BATCH, len(subject))))
    known = contestants()
    short = {n: replace(known["paper"], settings=replace(PAPER, steps=n)) for n in (FEW, MORE)}
    batch.problem(DECODED, short[FEW])  # decoded, and stage 1, before the clock runs
    timed = {_updates(n): contestant for n, contestant in short.items()}
    timed |= {name: known[name] for name in SECONDS_ASKED}
    say(f"timing {', '.join(timed)} on {len(batch.trials)} trials, {repeats} turns after a first")
    contestant_work = {name: _work(batch, contestant) for name, contestant in timed.items()}
    seconds = with_whole_paper(interleaved(contestant_work, repeats))
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


def _updates(n: int) -> str:
    return f"paper, {n} of {PAPER.steps} updates"


def with_whole_paper(seconds: Seconds) -> Seconds:
    """All the paper's updates, turn by turn, in place of the few; what is done once is counted once."""
    few, more = seconds[_updates(FEW)], seconds[_updates(MORE)]
    whole = [a + (PAPER.steps - FEW) * (b - a) / (MORE - FEW) for a, b in zip(few, more, strict=True)]
    return {"paper": whole, **{name: seconds[name] for name in SECONDS_ASKED}}


def cost_ratios(costs: Costs, sampling: Sampling) -> Mapping[str, Mapping[str, float]]:
    """How many times less the default and a single pass cost than each form of the paper's setting, beside stage 1."""
    known = contestants()
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
