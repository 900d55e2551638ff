"""Costs of whole pictures, from costs that are easy to add up."""

from __future__ import annotations

from typing import Any

import pytest

from minddiffuser.runtime.refine.costs import Costs, adam_cost, engine_costs, guided_cost, stage1_cost
from minddiffuser.runtime.refine.settings import GuidedSettings
from minddiffuser.runtime.sampling import Sampling

# Ten of fourteen steps are guided.
GRID: dict[str, Any] = {
    "candidates": 1,
    "n_steps": 25,
    "strength": 0.56,
    "guided_share": 0.7,
    "start_steps": 0,
    "finish_steps": 0,
    "semantic_weight": 0.0,
}
TORCH = Costs(
    predict=2.0,
    pull_back=5.0,
    back_only=3.0,
    back_with_context=3.5,
    decode=4.0,
    structural=9.0,
    with_semantic=10.0,
    structural_forward=4.5,
    reference_flops=1000,
    engines=False,
)
ENGINES = engine_costs(
    {"denoise": 2000, "vae_decode": 4000, "structure_gradient": 9000, "denoise_gradient": 5500, "clip_structure": 1}
)


def test_the_unit_on_engines_is_half_a_guided_step() -> None:
    assert ENGINES == Costs(
        predict=2.0,
        pull_back=5.5,
        back_only=5.5,
        back_with_context=5.5,
        decode=4.0,
        structural=9.0,
        with_semantic=9.0,
        structural_forward=9.0,
        reference_flops=1000,
        engines=True,
    )


def test_without_guidance_only_pytorch_saves_a_half() -> None:
    plain = TORCH.at_guidance(1.0)
    assert (plain.predict, plain.pull_back, plain.back_only, plain.back_with_context) == (1.0, 2.5, 1.5, 1.75)
    assert (plain.decode, plain.structural) == (TORCH.decode, TORCH.structural)
    assert TORCH.at_guidance(5.0) == TORCH
    assert ENGINES.at_guidance(1.0) == ENGINES


def test_stage_1() -> None:
    assert stage1_cost(TORCH, 35) == 35 * 2 + 4


@pytest.mark.parametrize(
    ("costs", "backprop_steps", "checkpointing", "expected"),
    [
        (TORCH, None, False, 61 * (35 * (2 + 3.5) + 9)),
        (TORCH, None, True, 61 * (35 * (2 + 2 + 3.5) + 9)),
        (TORCH, 4, False, 31 * 2 + 61 * (4 * (2 + 3.5) + 9)),
        (TORCH, 0, True, 35 * 2 + 61 * 9),
        (ENGINES, None, False, 61 * (35 * (2 + 5.5) + 9)),
        (ENGINES, None, True, 61 * (35 * (2 + 5.5) + 9)),  # engines compute a step again whatever is chosen
        (ENGINES, 0, False, 35 * 2 + 61 * 9),
    ],
)
def test_adam(costs: Costs, backprop_steps: int | None, checkpointing: bool, expected: float) -> None:
    found = adam_cost(costs, steps=60, n_reverse=35, backprop_steps=backprop_steps, checkpointing=checkpointing)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("costs", "choices", "expected"),
    [
        (TORCH, {}, 14 * 2 + 10 * (9 + 3) + 9),
        (TORCH, {"candidates": 6}, 6 * (14 * 2 + 10 * (9 + 3) + 9)),
        (TORCH, {"jacobian": False}, 14 * 2 + 10 * 9 + 9),
        (TORCH, {"candidates": 2, "start_steps": 7}, 7 * 9 + 2 * (14 * 2 + 10 * (9 + 3) + 9)),
        # With the semantic term CLIP goes further, but not for the latent before it is noised.
        (TORCH, {"start_steps": 7, "semantic_weight": 0.1}, 7 * 9 + 14 * 2 + 10 * (10 + 3) + 10),
        (TORCH, {"start_steps": 7, "start_step_size": 0.0}, 14 * 2 + 10 * (9 + 3) + 9),
        # Steps that finish the picture begin with its loss.
        (TORCH, {"candidates": 2, "finish_steps": 4}, 2 * (14 * 2 + 10 * (9 + 3) + 9) + 5 * 9),
        (TORCH, {"finish_steps": 4, "semantic_weight": 0.1}, 14 * 2 + 10 * (10 + 3) + 10 + 5 * 10),
        (
            TORCH,
            {"finish_steps": 4, "semantic_weight": 0.1, "finish_semantic_share": 0.0},
            14 * 2 + 10 * (10 + 3) + 10 + 5 * 9,
        ),
        (TORCH, {"finish_steps": 4, "finish_step_size": 0.0}, 14 * 2 + 10 * (9 + 3) + 9),
        (ENGINES, {"semantic_weight": 0.1}, 14 * 2 + 10 * (9 + 5.5) + 9),
        # The way back of engines holds the forward pass.
        (ENGINES, {"candidates": 2}, 2 * (14 * 2 + 10 * (9 + 5.5) + 9)),
        (ENGINES, {"candidates": 2, "jacobian": False}, 2 * (14 * 2 + 10 * 9 + 9)),
    ],
)
def test_guided(costs: Costs, choices: dict[str, Any], expected: float) -> None:
    """Every step predicts, a guided one goes back too, and each pass ends with the loss of its picture."""
    settings = GuidedSettings(**{**GRID, **choices})
    assert guided_cost(costs, settings, Sampling()) == pytest.approx(expected, rel=1e-12)


def test_an_unguided_pass_is_stage_1_and_a_loss() -> None:
    settings = GuidedSettings(**{**GRID, "n_steps": None, "strength": None, "step_size": 0.0})
    expected = stage1_cost(TORCH, 35) - TORCH.decode + TORCH.structural
    assert guided_cost(TORCH, settings, Sampling()) == expected
