"""Clamped pixels: how far the gradient changes when autograd clamps some of them and not others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minddiffuser.export.graphs.base import network_graph
from minddiffuser.export.onnx.tracing import example_inputs
from minddiffuser.export.verify.undecided import _groups, clamp_bounds, undecided
from minddiffuser.runtime.backends.reference import TorchEngine
from minddiffuser.runtime.models.open import load_models


class Decided(torch.autograd.Function):
    """Clamps, and lets the gradient through where a mask says so."""

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


@pytest.mark.parametrize("window", [1e-4, 0.01])
def test_no_side_is_further_than_the_bound(small_models: Any, feeds: dict[str, Tensor], window: float) -> None:
    """The smaller of these windows holds a pixel or two, the larger some hundred."""
    with torch.no_grad():
        pixels = small_models.decode_unclamped(feeds["latent"])
    if window == 1e-4:  # a few, by moving the picture
        feeds, pixels = at_the_edge(small_models, feeds)
    undecided = ((pixels - 0).abs() <= window) | ((pixels - 1).abs() <= window)
    inside = (pixels > 0) & (pixels < 1)
    assert 0 < undecided.sum() < undecided.numel()
    reference = gradient(small_models, feeds, inside)
    (bound,) = clamp_bounds(small_models, {k: v.numpy() for k, v in feeds.items()}, [window])
    assert (bound >= 0).all()
    peak = np.abs(reference).max()
    drawn = torch.Generator().manual_seed(0)
    for share in (0.0, 0.5, 1.0):
        chosen = undecided & (torch.rand(pixels.shape, generator=drawn) < share)
        other = gradient(small_models, feeds, (inside & ~undecided) | chosen)
        moved = np.abs(other - reference)
        # Pixels of one group may cancel in the bound: of the largest move, not of every element.
        assert moved.max() <= bound.max() + 1e-5 * peak
    through = gradient(small_models, feeds, inside | undecided) - gradient(small_models, feeds, inside & ~undecided)
    assert np.abs(through).max() <= bound.max() + 1e-5 * peak
    assert bound.max() <= 20 * np.abs(through).max()


def at_the_edge(models: Any, feeds: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Latents along a line until some pixel of it lies at the edge."""
    for step in np.linspace(0, 1, 400):
        moved = {**feeds, "latent": feeds["latent"] * float(1 + step)}
        with torch.no_grad():
            pixels = models.decode_unclamped(moved["latent"])
        distance = torch.minimum(pixels.abs(), (pixels - 1).abs())
        if 0 < int((distance <= 1e-4).sum()) <= 3:
            return moved, pixels
    raise AssertionError("no pixel came near the edge")


def test_few_pixels_are_differentiated_one_by_one(small_models: Any, feeds: dict[str, Tensor]) -> None:
    """Then the bound is the sum of what each does, whatever its sign: exact to rounding."""
    feeds, pixels = at_the_edge(small_models, feeds)
    edge = torch.minimum(pixels.abs(), (pixels - 1).abs()) <= 1e-4
    inside = (pixels > 0) & (pixels < 1) & ~edge
    closed = gradient(small_models, feeds, inside)
    alone = []
    for place in edge.nonzero():
        through = inside.clone()
        through[tuple(place)] = True
        alone.append(np.abs(gradient(small_models, feeds, through) - closed))
    (bound,) = clamp_bounds(small_models, {k: v.numpy() for k, v in feeds.items()}, [1e-4])
    np.testing.assert_allclose(bound, sum(alone), atol=1e-5 * np.abs(closed).max())


def test_opposite_slopes_do_not_cancel() -> None:
    """Two pixels that pull one latent apart with the same force: either may be clamped alone."""
    slope = torch.zeros(1, 1, 2, 8)
    slope[0, 0, 0, 0], slope[0, 0, 1, 7] = 0.05, -0.05
    groups = _groups(slope)
    assert len(groups) == 2
    assert sum(float(group.sum().abs()) for group in groups) == pytest.approx(0.1)
    assert torch.equal(sum(groups, start=torch.zeros_like(slope)), slope)


def test_decided_pixels_leave_nothing_open(small_models: Any, feeds: dict[str, Tensor]) -> None:
    (found,) = clamp_bounds(small_models, {k: v.numpy() for k, v in feeds.items()}, [0.0])
    assert not found.any()


def test_a_coarser_precision_leaves_more_open(small_models: Any, feeds: dict[str, Tensor]) -> None:
    found = undecided(small_models, ["fp32", "fp16", "bf16"], {k: v.numpy() for k, v in feeds.items()})
    sizes = [float(found[p]["latent_gradient"].max()) for p in ("fp32", "fp16", "bf16")]
    assert sizes == sorted(sizes)
    assert sizes[2] > sizes[0]
