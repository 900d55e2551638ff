"""The descent of clean latents: both loops written out, and which iterate is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from minddiffuser.runtime.refine.base import Problem
from minddiffuser.runtime.refine.descent import descended, finished
from minddiffuser.runtime.refine.settings import GuidedSettings
from minddiffuser.runtime.refine.weights import StructuralWeights
from minddiffuser.runtime.sampling import Sampling

TRIALS = ("a", "b", "c")


@pytest.fixture(scope="module")
def problem(exact: Any, problem_of: Callable[..., Problem[Any]]) -> Problem[Any]:
    return problem_of(exact, TRIALS, Sampling(n_steps=10, n_noise=None, n_reverse=6))


def loss_of(problem: Problem[Any]) -> Callable[[Any], Any]:
    """The structural loss of clean latents of all trials."""
    weights = StructuralWeights.of_settings(GuidedSettings(), problem.target, problem.mask)
    return lambda x0: problem.backend.structural(x0, problem.target, weights)


def blurred(maps: torch.Tensor, width: float) -> torch.Tensor:
    """By scipy: a constant is divided out, so that what lies outside counts for nothing."""
    if width == 0:
        return maps
    whole = np.ones(maps.shape[-2:])
    inside = gaussian_filter(whole, width, mode="constant", truncate=20)
    return torch.from_numpy(gaussian_filter(maps.numpy(), (0, 0, width, width), mode="constant", truncate=20) / inside)


def written_out(
    exact: Any, problem: Problem[Any], latent: np.ndarray, row: int, step_size: float, smoothing: float = 0.0
) -> list[torch.Tensor]:
    """Three steps of one trial with autograd through diffusers' VAE, the loss by hand, in float64: all iterates."""
    mask, target = torch.from_numpy(problem.mask).double(), torch.from_numpy(problem.target[row]).double()
    weights = mask / mask.sum((-2, -1), keepdim=True).clip(1) / len(mask)
    x = torch.from_numpy(latent[row : row + 1]).double()
    iterates = [x]
    for share in (1, 2 / 3, 1 / 3):
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            structure, _ = exact.structure(exact.decode_latent(leaf))
            (gradient,) = torch.autograd.grad(((structure - target) ** 2 * weights).sum(), leaf)
        gradient = blurred(gradient, smoothing)
        x = x - step_size * share * leaf.numel() ** 0.5 * gradient / gradient.norm()
        iterates.append(x)
    return iterates


def test_the_descent_before_sampling(exact: Any, problem: Problem[Any]) -> None:
    latent = np.asarray(problem.start(range(len(TRIALS))).latent)
    seen: list[int] = []
    found = descended(latent, loss_of(problem), steps=3, step_size=0.1, on_step=lambda i, _image: seen.append(i))
    for row in range(len(TRIALS)):
        expected = written_out(exact, problem, latent, row, 0.1)[-1]
        # Three roundings of float32, each of which the next gradients see.
        np.testing.assert_allclose(found[row : row + 1], expected.numpy(), rtol=0, atol=1e-5)
    assert found.dtype == np.float32
    assert seen == [1, 2, 3]
    np.testing.assert_array_equal(descended(latent, loss_of(problem), steps=0, step_size=0.1), latent)


@pytest.mark.parametrize(("sign", "smoothing"), [(1, 0.0), (1, 0.8), (-1, 0.0)])
def test_what_finishes_keeps_the_lowest_iterate(exact: Any, problem: Problem[Any], sign: int, smoothing: float) -> None:
    """Down all the way, and up from where it began, where nothing better than that is found."""
    latent = np.asarray(problem.start(range(len(TRIALS))).latent)
    inner, seen = loss_of(problem), list[int]()

    def loss(x0: Any) -> Any:
        value, gradient, image = inner(x0)
        return value, sign * gradient, image

    x = torch.from_numpy(latent).double()
    found = finished(x, loss, steps=3, step_size=0.02, smoothing=smoothing, on_step=lambda i, _image: seen.append(i))
    iterates = [written_out(exact, problem, latent, row, sign * 0.02, smoothing) for row in range(len(TRIALS))]
    losses = np.stack([np.asarray(inner(torch.cat([one[k] for one in iterates]))[0]) for k in range(4)])
    np.testing.assert_allclose(found.curve, losses, rtol=1e-6)
    best = losses.argmin(0)
    assert set(best.tolist()) == {3 if sign > 0 else 0}
    for row, k in enumerate(best):
        torch.testing.assert_close(found.latent[row : row + 1], iterates[row][k], rtol=0, atol=1e-8)
    torch.testing.assert_close(found.image, exact.decode_latent(found.latent), rtol=0, atol=1e-10)
    assert seen == [1, 2, 3]
    assert torch.equal(x, torch.from_numpy(latent).double())  # what was given is not written over


def test_a_step_to_nothing_finite_is_not_kept(problem: Problem[Any]) -> None:
    """The gradient of one trial is NaN after the first step."""
    inner, calls = loss_of(problem), list[int]()

    def loss(x0: Any) -> Any:
        value, gradient, image = inner(x0)
        if not calls:
            gradient = gradient.clone()
            gradient[1] = torch.nan
        calls.append(1)
        return value, gradient, image

    x = torch.from_numpy(np.asarray(problem.start(range(len(TRIALS))).latent)).double()
    found, good = (finished(x, how, steps=2, step_size=0.02) for how in (loss, loss_of(problem)))
    torch.testing.assert_close(found.latent[1], x[1], rtol=0, atol=0)
    assert np.isnan(found.curve[1:, 1]).all()
    for row in (0, 2):
        torch.testing.assert_close(found.latent[row], good.latent[row], rtol=0, atol=1e-12)
