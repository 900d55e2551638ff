from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.runtime.backends.base import Backend
from minddiffuser.runtime.refine.settings import PRESETS, GuidedSettings
from minddiffuser.runtime.sampling import Sampling
from minddiffuser.streaming.generation.pace import Pace, measured
from minddiffuser.streaming.generation.plan import Plan, plan_for, variants, whole_plan

DEFAULT = PRESETS["default"]
assert isinstance(DEFAULT, GuidedSettings)
# One UNet step of the tiny world on one core, and what the other calls cost beside it.
PACE = Pace(decode=0.001, render=0.004, step=0.006, loss=0.012, guided=0.03)
SECONDS = st.floats(1e-4, 1e-1)


def seconds_of(plan: Plan, pace: Pace) -> float:
    """Counted call by call, as the drawing makes them."""
    total = pace.render + sum(pace.step for _ in range(plan.sampling.n_reverse))
    if plan.refine is None:
        return total
    n_steps, n_guided = plan.refine.sampling(plan.sampling).n_reverse, plan.refine.n_guided(plan.sampling)
    total += plan.refine.start_steps * pace.loss
    for _ in range(plan.refine.candidates or 1):
        total += sum(pace.guided if k < n_guided else pace.step for k in range(n_steps)) + pace.loss
    return total + (plan.refine.finish_steps + 1) * pace.loss


@given(st.floats(0.01, 30), st.builds(Pace, decode=SECONDS, render=SECONDS, step=SECONDS, loss=SECONDS, guided=SECONDS))
def test_a_plan_that_fits_fits(seconds: float, pace: Pace) -> None:
    plan = plan_for(seconds, pace, DEFAULT, Sampling())
    if plan.fits:
        assert seconds_of(plan, pace) <= seconds
        assert plan.sampling.n_reverse == 2 or pace.stage1(plan.sampling) <= seconds / 4
    else:
        shortest = [2, 4, 8, 35][: 1 + [2, 4, 8, 35].index(plan.sampling.n_reverse)]
        assert plan.refine is not None
        assert plan.refine.candidates == 1
        assert shortest


@pytest.mark.parametrize("seconds", [0.1, 0.3, 1.0, 2.0, 5.0, 60.0])
def test_more_time_is_never_used_for_less(seconds: float) -> None:
    less, more = plan_for(seconds, PACE, DEFAULT, Sampling()), plan_for(2 * seconds, PACE, DEFAULT, Sampling())
    assert less.sampling.n_reverse <= more.sampling.n_reverse
    assert seconds_of(less, PACE) <= seconds_of(more, PACE) or not less.fits


def test_with_much_time_it_is_what_was_asked_for() -> None:
    plan = plan_for(3600.0, PACE, DEFAULT, Sampling())
    assert plan.refine == DEFAULT
    assert plan.sampling == Sampling()
    assert plan.most_candidates == 12


def test_guidance_is_the_persons_own_whatever_the_steps() -> None:
    plan = plan_for(0.05, PACE, DEFAULT, Sampling(guidance_scale=3.0))
    assert plan.sampling.n_reverse == 2
    assert plan.sampling.guidance_scale == 3.0


def test_variants_become_shorter() -> None:
    for refine in (DEFAULT, PRESETS["single"]):
        assert isinstance(refine, GuidedSettings)
        costs = [PACE.once(one) + PACE.candidate(one, Sampling()) for one in variants(refine)]
        assert len(costs) > 1
        assert all(a > b for a, b in itertools.pairwise(costs))


@pytest.mark.parametrize(
    "plan", [whole_plan(DEFAULT, Sampling()), whole_plan(None, Sampling()), plan_for(0.5, PACE, DEFAULT, Sampling())]
)
def test_a_plan_goes_through_json(plan: Plan) -> None:
    assert Plan.from_json(json.loads(json.dumps(plan.as_json()))) == plan


def test_costs_are_kept_apart(backend: Backend[Any]) -> None:
    """Each call takes what a counting clock says that it takes."""
    costs = {"denoise": 5.0, "vae_decode": 2.0, "structure_gradient": 11.0, "denoise_gradient": 7.0}
    time = [0.0]
    engines: Any = backend._engines  # type: ignore[attr-defined]

    class Timed:
        def __init__(self, name: str) -> None:
            self._engine, self._name = engines[name], name

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self._engine, attribute)

        def run(self, feeds: Any) -> Any:
            time[0] += costs.get(self._name, 1.0)
            return self._engine.run(feeds)

    class Set:
        def __getattr__(self, attribute: str) -> Any:
            return getattr(engines, attribute)

        def __getitem__(self, name: str) -> Timed:
            return Timed(name)

        def loop(self) -> None:
            return None

    backend._engines = Set()  # type: ignore[attr-defined]
    refine = GuidedSettings(semantic_weight=0.0)
    pace = measured(backend, refine, Sampling(), lambda: time[0])
    backend._engines = engines  # type: ignore[attr-defined]
    assert pace.step == 5.0
    assert pace.render == 2.0
    assert pace.loss == 11.0
    # A guided step: the noise, the loss at the clean estimate, and the way back through the network.
    assert pace.guided == 5.0 + 11.0 + 7.0
    assert np.isclose(pace.stage1(Sampling()), 2 + 35 * 5)
