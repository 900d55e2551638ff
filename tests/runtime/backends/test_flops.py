"""Counts of operations against formulas by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from minddiffuser.runtime.backends.flops import autograd_costs, flops_of, without_data
from minddiffuser.runtime.models.models import Models


def test_operations_are_two_for_each_multiply_and_add() -> None:
    linear = torch.nn.Linear(7, 5, device="meta").requires_grad_(False)
    kernel = torch.empty(4, 3, 3, 3, device="meta")
    rows, picture = torch.empty(2, 7, device="meta"), torch.empty(2, 3, 8, 8, device="meta")
    query = torch.empty(2, 6, 10, 4, device="meta")
    assert flops_of(lambda: linear(rows)) == 2 * 2 * 7 * 5
    assert flops_of(lambda: F.conv2d(picture, kernel, padding=1)) == 2 * 2 * 64 * 3 * 4 * 9
    assert flops_of(lambda: F.scaled_dot_product_attention(query, query, query)) == 2 * 2 * 2 * 6 * 10 * 10 * 4


@pytest.mark.parametrize("learns", [False, True])
def test_a_gradient_costs_a_pass_and_one_more_where_weights_learn(learns: bool) -> None:
    weight = torch.empty(5, 7, device="meta", requires_grad=learns)
    kernel = torch.empty(4, 3, 3, 3, device="meta", requires_grad=learns)
    rows = torch.empty(2, 7, device="meta", requires_grad=True)
    picture = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)

    def backward(out: torch.Tensor, *leaves: Any) -> None:
        torch.autograd.grad(out, [leaf for leaf in leaves if leaf.requires_grad], torch.empty_like(out))

    passes = 3 if learns else 2
    assert flops_of(lambda: backward(F.linear(rows, weight), rows, weight)) == passes * 2 * 2 * 7 * 5
    whole = flops_of(lambda: backward(F.conv2d(picture, kernel, padding=1), picture, kernel))
    assert whole == passes * 2 * 2 * 64 * 3 * 4 * 9


def test_shapes_of_networks_take_no_memory_and_leave_the_networks_alone(small_models: Models) -> None:
    bare = without_data(small_models)
    for part in ("unet", "vae", "clip"):
        given, made = getattr(small_models, part), getattr(bare, part)
        assert {weight.device.type for weight in (*made.parameters(), *made.buffers())} == {"meta"}
        assert {weight.device.type for weight in (*given.parameters(), *given.buffers())} == {"cpu"}
        shapes = {name: tuple(weight.shape) for name, weight in given.state_dict().items()}
        assert {name: tuple(weight.shape) for name, weight in made.state_dict().items()} == shapes


def test_costs_of_autograd(small_models: Models) -> None:
    costs = autograd_costs(small_models)
    assert costs.predict == 2.0
    assert costs.pull_back == pytest.approx(costs.predict + costs.back_only, rel=1e-12)
    # Weights are frozen: the way back of a layer costs what the layer does, of attention, where both factors move,
    # twice as much. The gradient at the context adds its own projections.
    assert 0.8 * costs.predict < costs.back_only < costs.back_with_context < 2 * costs.predict
    assert costs.decode < costs.structural_forward < costs.structural < 3 * costs.structural_forward
    latent = torch.zeros(1, *small_models.latent_shape)
    context = torch.zeros(1, *small_models.context_shape)
    with torch.no_grad():  # with data, and apart from the other counts
        unit = flops_of(lambda: small_models.predict_noise(latent, 1, context))
        decode = flops_of(lambda: small_models.decode_latent(latent))
    assert (costs.reference_flops, costs.decode) == (unit, decode / unit)
