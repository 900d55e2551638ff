"""The guided pass: each step by finite differences, all steps written out, and what must make no difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from minddiffuser.runtime.generators.ddim import clean_estimate, ddim_update
from minddiffuser.runtime.refine.base import Problem, Trajectory
from minddiffuser.runtime.refine.guided import guided_pass
from minddiffuser.runtime.refine.settings import GuidedSettings
from minddiffuser.runtime.refine.weights import StructuralWeights
from minddiffuser.runtime.sampling import Sampling

GUIDANCE, STEP_SIZE, N_GUIDED = 3.0, 0.2, 4
SAMPLING = Sampling(guidance_scale=GUIDANCE, n_steps=10, n_noise=None, n_reverse=6)
TRIALS = ("a", "b", "c")


@pytest.fixture(scope="module")
def problem(exact: Any, problem_of: Callable[..., Problem[Any]]) -> Problem[Any]:
    return problem_of(exact, TRIALS, SAMPLING)


def loss_of(problem: Problem[Any], scale: float = 1.0) -> Callable[[Any], Any]:
    """The structural loss of clean latents of all trials, `scale` times what it is."""
    weights = StructuralWeights.of_settings(GuidedSettings(), problem.target, problem.mask)

    def loss(x0: Any) -> Any:
        value, gradient, image = problem.backend.structural(x0, problem.target, weights)
        return value * scale, gradient * scale, image

    return loss


class Watched:
    """A sampler that keeps every x that it is given, and the noise that it found there."""

    def __init__(self, sampler: Any) -> None:
        self._sampler, self.schedule = sampler, sampler.schedule
        self.x: list[Any] = []
        self.noise: list[Any] = []

    def _keep(self, x: Any, found: Any) -> Any:
        self.x.append(x)
        self.noise.append(found[1])
        return found

    def predict(self, x: Any, k: int) -> Any:
        return self._keep(x, self._sampler.predict(x, k))

    def linearise(self, x: Any, k: int) -> Any:
        return self._keep(x, self._sampler.linearise(x, k))


def run(problem: Problem[Any], loss: Any = None, **given: Any) -> tuple[Trajectory[Any], Watched]:
    watched = Watched(problem.generator)
    how = {"step_size": STEP_SIZE, "n_guided": N_GUIDED, **given}
    found = guided_pass(watched, problem.generator.start(problem.noise(0)), loss or loss_of(problem), **how)
    return found, watched


@pytest.mark.parametrize("k", [pytest.param(0, marks=pytest.mark.long), N_GUIDED - 1])
def test_a_step_goes_down_the_gradient_by_finite_differences(problem: Problem[Any], k: int) -> None:
    """The loss of the clean estimate's picture as a function of x, moved along each of x's values."""
    found, watched = run(problem)
    steps = [*watched.x[1:], found.latent]
    _, keep, keep_next = list(problem.generator.schedule)[k]
    x, loss, size, h = watched.x[k], loss_of(problem), watched.x[k][0].numel(), 1e-5
    step = steps[k] - ddim_update(x, watched.noise[k], keep, keep_next)

    def value(moved: torch.Tensor) -> torch.Tensor:
        return loss(problem.generator.predict(moved, k)[0])[0]

    gradient = torch.zeros_like(x)
    for at in range(size):
        moved = torch.zeros(size, dtype=x.dtype)
        moved[at] = h
        moved = moved.view(x.shape[1:])
        gradient.flatten(1)[:, at] = (value(x + moved) - value(x - moved)) / (2 * h)
    norms = gradient.flatten(1).norm(dim=1)
    # Rounding, 1e-16 of the loss over h, must be far below what is measured.
    assert (norms > 1e-3 * value(x)).all()
    length = STEP_SIZE * (1 - keep) ** 0.5 * size**0.5
    np.testing.assert_allclose(step.flatten(1).norm(dim=1), length, rtol=1e-9)
    expected = -length * gradient / norms[:, None, None, None]
    assert (step - expected).flatten(1).norm(dim=1).max() / length < 1e-5


def written_out(models: Any, problem: Problem[Any], *, jacobian: bool) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
    """The whole pass with diffusers' UNet, VAE and scheduler and autograd, trial by trial; eq. 5 by hand."""
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=False,
    )
    scheduler.alphas_cumprod = torch.tensor(models.alphas_cumprod)  # theirs are float32
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(SAMPLING.n_steps)
    timesteps = scheduler.timesteps[-SAMPLING.n_reverse :]
    start, mask = problem.start(range(len(TRIALS))), torch.from_numpy(problem.mask)
    empty = torch.from_numpy(problem.backend.uncond_context)[None].double()
    latents, images, curves = [], [], []
    for trial in range(len(TRIALS)):
        z, c, noise, target = (
            torch.from_numpy(array[trial]).double()
            for array in (start.latent, start.context, problem.noise(0), problem.target)
        )
        x, curve = scheduler.add_noise(z[None], noise[None], timesteps[:1]), []

        def picture_and_loss(x0: torch.Tensor, target: torch.Tensor = target) -> tuple[torch.Tensor, torch.Tensor]:
            picture = (models.vae.decode(x0 / models.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
            error = models.structure(picture)[0][0] - target
            terms = [(layer[kept] ** 2).mean() for layer, kept in zip(error, mask, strict=True)]
            return picture, torch.stack(terms).mean()

        for k, t in enumerate(timesteps):
            x = x.detach().requires_grad_()
            without = models.unet(x, t, encoder_hidden_states=empty).sample
            within = models.unet(x, t, encoder_hidden_states=c[None]).sample
            e = without + GUIDANCE * (within - without)
            done = scheduler.step(e, t, x)
            step = torch.zeros_like(x)
            if k < N_GUIDED:
                _, loss = picture_and_loss(done.pred_original_sample)
                (g,) = torch.autograd.grad(loss, x if jacobian else done.pred_original_sample)
                left = (1 - scheduler.alphas_cumprod[t]) ** 0.5
                step = STEP_SIZE * left * x.numel() ** 0.5 * g / g.norm()
                curve.append(loss.item())
            x = (done.prev_sample - step).detach()
        picture, loss = picture_and_loss(x)
        latents.append(x)
        images.append(picture.detach())
        curves.append([*curve, loss.item()])
    return torch.cat(latents), torch.cat(images), curves


@pytest.mark.parametrize("jacobian", [True, False])
def test_a_pass_is_the_one_that_is_written_out(exact: Any, problem: Problem[Any], jacobian: bool) -> None:
    found, _ = run(problem, jacobian=jacobian)
    latent, image, curves = written_out(exact, problem, jacobian=jacobian)
    # Float64: rounding, which the steps enlarge; a wrong step is off by its length.
    torch.testing.assert_close(found.latent, latent, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.image, image, rtol=0, atol=1e-8)
    # One over the number of layers is a float32.
    np.testing.assert_allclose(found.curve, np.transpose(curves), rtol=float(np.finfo(np.float32).eps))
    assert found.curve.shape == (N_GUIDED + 1, len(TRIALS))


def test_the_two_gradients_differ(problem: Problem[Any]) -> None:
    """Else the test before would show nothing of the way back through the UNet."""
    with_unet, without = (run(problem, jacobian=choice)[0].latent for choice in (True, False))
    assert (with_unet - without).abs().amax((1, 2, 3)).min() > 1e-3


def test_a_small_step_lowers_the_loss(problem: Problem[Any]) -> None:
    plain, guided = (run(problem, step_size=size)[0] for size in (0.0, 0.05))
    assert (guided.curve[-1] < plain.curve[-1]).all()
    assert plain.curve.shape == (1, len(TRIALS))


@pytest.mark.parametrize("scale", [1e6, 1e-6, 1e-30])
def test_the_size_of_the_loss_does_not_matter(problem: Problem[Any], scale: float) -> None:
    plain, scaled = run(problem)[0], run(problem, loss_of(problem, scale))[0]
    torch.testing.assert_close(scaled.latent, plain.latent, rtol=0, atol=1e-9)
    np.testing.assert_allclose(scaled.curve / scale, plain.curve, rtol=1e-9)


@pytest.mark.parametrize(("on_engines", "atol"), [(False, 0.0), (True, 1e-5)])
def test_a_tiny_gradient_is_not_lost_in_float32(
    small_models: Any, problem_of: Any, torch_engines: Any, on_engines: bool, atol: float
) -> None:
    """At 1e-30, whose square float32 does not hold; a power of two, which PyTorch's way back takes out again."""
    graphs = torch_engines(small_models, semantic=True) if on_engines else None
    problem = problem_of(small_models, TRIALS, SAMPLING, graphs=graphs)
    plain, scaled = run(problem)[0], run(problem, loss_of(problem, 2.0**-100))[0]
    np.testing.assert_allclose(np.asarray(scaled.image), np.asarray(plain.image), rtol=0, atol=atol)


def test_without_gradient_there_is_no_step(problem: Problem[Any]) -> None:
    """A flat loss leaves x where DDIM brings it, and no NaN."""
    plain, flat = run(problem, step_size=0.0)[0], run(problem, loss_of(problem, 0.0))[0]
    torch.testing.assert_close(flat.latent, plain.latent, rtol=0, atol=1e-12)


def test_nan_in_one_trial_is_nothing_to_the_others(problem: Problem[Any]) -> None:
    sampler, loss = problem.generator, loss_of(problem)

    def from_start(bad: bool) -> Trajectory[Any]:
        x = sampler.start(problem.noise(0)).clone()
        if bad:
            x[1, 0, 0, 0] = torch.nan
        return guided_pass(sampler, x, loss, step_size=STEP_SIZE, n_guided=N_GUIDED)

    good, found = from_start(False), from_start(True)
    for ours, theirs in ((found.latent, good.latent), (found.image, good.image), (found.curve.T, good.curve.T)):
        np.testing.assert_array_equal(np.asarray(ours)[[0, 2]], np.asarray(theirs)[[0, 2]])
    assert np.isnan(found.curve[:, 1]).all()


def test_every_step_is_reported_with_the_picture_of_the_clean_estimate(problem: Problem[Any]) -> None:
    seen: list[tuple[int, Any]] = []
    _, watched = run(problem, on_step=lambda k, image: seen.append((k, image)))
    assert [k for k, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert [image is None for _, image in seen] == [False] * N_GUIDED + [True] * 2
    for (_, image), x, noise, keep in zip(
        seen[:N_GUIDED], watched.x, watched.noise, watched.schedule.keep, strict=False
    ):
        expected = problem.generator.decode(clean_estimate(x, noise, float(keep)))
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-10)
