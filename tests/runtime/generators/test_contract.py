"""What every generator must do, and besides every one that samples in steps (test_steps.py has their numbers)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.generators.base import Generator
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.pixels import PixelGenerator
from minddiffuser.runtime.sampling import Sampling

N = 3
SHORT = Sampling(n_steps=10, n_noise=7, n_reverse=6)


def build_diffusion(models: Any, rows: list[int]) -> Generator[torch.Tensor]:
    rng = np.random.default_rng(1)
    latent, noise = (rng.standard_normal((N, *models.latent_shape)).astype(np.float32)[rows] for _ in range(2))
    context = rng.standard_normal((N + 1, *models.context_shape)).astype(np.float32)
    return DiffusionGenerator(models, latent, context[:N][rows], context[N], noise, sampling=SHORT)


def build_pixels(_models: Any, rows: list[int]) -> Generator[torch.Tensor]:
    return PixelGenerator(torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(1))[rows], n_levels=3)


BUILD: dict[str, Callable[[Any, list[int]], Generator[torch.Tensor]]] = {
    "diffusion": build_diffusion,
    "pixels": build_pixels,
}


def moved(params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    make = torch.Generator().manual_seed(2)
    return {
        k: v + 0.1 * torch.randn(v.shape, generator=make, dtype=torch.float64).to(v.dtype) for k, v in params.items()
    }


@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)
class TestContract:
    def test_params_have_a_row_per_trial_and_are_fresh(self, build, toy_models) -> None:
        generator = build(toy_models, [0, 1, 2])
        first, again = generator.initial(), generator.initial()
        assert first
        for key, value in first.items():
            assert len(value) == N
            assert value.is_floating_point()
            assert value.is_leaf
            assert not value.requires_grad
            value += 1.0  # a caller may change what it got
            assert not torch.equal(again[key], value)
            torch.testing.assert_close(generator.initial()[key], again[key], rtol=0, atol=0)

    def test_pictures_are_rgb_within_bounds_and_repeatable(self, build, toy_models) -> None:
        generator = build(toy_models, [0, 1, 2])
        params = generator.initial()
        image = generator.render(params)
        assert image.shape == (N, 3, 8, 8)
        assert 0 <= image.min() <= image.max() <= 1
        assert torch.equal(image, generator.render(params))
        stage1 = generator.stage1()
        assert torch.equal(image, stage1)
        assert not stage1.requires_grad

    def test_every_param_moves_its_own_trial_only(self, build, toy_models) -> None:
        generator = build(toy_models, [0, 1, 2])
        leaves = {k: v.requires_grad_() for k, v in moved(generator.initial()).items()}
        image = generator.render(leaves)
        gradients = torch.autograd.grad((image[1] ** 2).sum(), list(leaves.values()))
        for gradient in gradients:
            assert gradient[1].abs().max() > 0
            assert gradient[[0, 2]].abs().max() == 0

    def test_a_trial_does_not_depend_on_its_batch(self, build, toy_models) -> None:
        whole, part = build(toy_models, [0, 1, 2]), build(toy_models, [2, 0])
        image = whole.render(moved(whole.initial()))
        chosen = {key: value[[2, 0]] for key, value in moved(whole.initial()).items()}
        torch.testing.assert_close(part.render(chosen), image[[2, 0]], rtol=0, atol=1e-6)
