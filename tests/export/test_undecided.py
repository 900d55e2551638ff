"""Clamped pixels: the jump is what the gradient loses when autograd is told to clamp them, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minddiffuser.export.graphs.base import network_graph
from minddiffuser.export.tracing import example_inputs
from minddiffuser.export.undecided import clamp_jumps
from minddiffuser.runtime.engines.pytorch import TorchEngine
from minddiffuser.runtime.models.open import load_models


class Decided(torch.autograd.Function):
    """Clamps, and lets the gradient through where it is told to."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, through: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(through)
        return torch.minimum(torch.maximum(pixels, torch.zeros(())), torch.ones(()))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return slopes[0] * ctx.saved_tensors[0], None


@pytest.fixture(scope="module")
def small_models(small_world: Path) -> Any:
    return load_models(str(small_world))


@pytest.fixture
def feeds(small_models: Any) -> dict[str, Tensor]:
    made = example_inputs(network_graph("structure_gradient", small_models, semantic=True), batch=2)
    return {**made, "mask": torch.ones_like(made["mask"])}


def gradient(models: Any, feeds: dict[str, Tensor], through: Tensor) -> np.ndarray:
    """By autograd, where the pixels to let through are chosen."""

    class Chosen(type(models)):  # type: ignore[misc]
        def decode_latent(self, latent: Tensor) -> Tensor:
            return Decided.apply(self.decode_unclamped(latent), through)  # type: ignore[no-any-return]

    chosen = Chosen(**{name: getattr(models, name) for name in models.__dataclass_fields__})
    graph = network_graph("structure_gradient", models, semantic=True)
    found = TorchEngine(graph.name, chosen, graph.inputs, graph.outputs).run(feeds)["latent_gradient"]
    return np.asarray(found)


@pytest.mark.parametrize("window", [0.01, 0.2])
def test_the_jump_is_between_one_side_and_the_other(small_models: Any, feeds: dict[str, Tensor], window: float) -> None:
    with torch.no_grad():
        pixels = small_models.decode_unclamped(feeds["latent"])
    undecided = ((pixels - 0).abs() <= window) | ((pixels - 1).abs() <= window)
    inside = (pixels > 0) & (pixels < 1)
    assert 0 < undecided.sum() < undecided.numel()
    through = gradient(small_models, feeds, inside | undecided)
    clamped = gradient(small_models, feeds, inside & ~undecided)
    found = clamp_jumps(small_models, {k: v.numpy() for k, v in feeds.items()}, window)["latent_gradient"]
    np.testing.assert_allclose(found, through - clamped, atol=1e-5 * np.abs(through).max())
    assert np.abs(found).max() > 1e-3 * np.abs(through).max()


def test_decided_pixels_leave_nothing_open(small_models: Any, feeds: dict[str, Tensor]) -> None:
    found = clamp_jumps(small_models, {k: v.numpy() for k, v in feeds.items()}, window=0.0)
    assert not found["latent_gradient"].any()
