"""The steps of a generator: against diffusers, autograd and finite differences, and engines against PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from minddiffuser.runtime.backends.reference import TorchEngine
from minddiffuser.runtime.errors import ShapeError
from minddiffuser.runtime.generators.base import Sampler
from minddiffuser.runtime.generators.ddim import ddim_schedule, ddim_update
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.engines import EngineGenerator
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.sampling import Sampling

GUIDANCE = 3.0
SAMPLING = Sampling(guidance_scale=GUIDANCE, n_noise=None, n_reverse=12)
STEPS = [0, 5, 11]  # the noisiest, one between, and the last


@pytest.fixture(scope="module")
def exact(small_world: Path) -> Any:
    return load_models(str(small_world), dtype="float64")


@pytest.fixture
def inputs(small_models: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Three trials of the small world."""
    latent, noise = (rng.standard_normal((3, *small_models.latent_shape)).astype(np.float32) for _ in "zn")
    context = rng.standard_normal((4, *small_models.context_shape)).astype(np.float32)
    return {"latent": latent, "context": context[:3], "uncond_context": context[3], "noise": noise}


@pytest.fixture
def v(small_models: Any, rng: np.random.Generator) -> np.ndarray:
    """A gradient at x0, of very different size from trial to trial, as losses' are."""
    drawn = rng.standard_normal((3, *small_models.latent_shape)).astype(np.float32)
    return drawn * np.float32([1, 1e-4, 30])[:, None, None, None]


@pytest.fixture
def on_engines(
    small_models: Any, inputs: dict[str, Any], torch_engines: Callable[..., dict[str, TorchEngine]]
) -> EngineGenerator:
    return EngineGenerator(torch_engines(small_models), small_models, *inputs.values(), sampling=SAMPLING)


def noised(inputs: dict[str, Any], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(inputs["latent"] + inputs["noise"]).to(dtype)


@torch.no_grad()
def by_diffusers(models: Any, inputs: dict[str, Any], x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean estimate and guided noise with the UNet itself and diffusers' scheduler."""
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    scheduler.set_timesteps(50)
    timestep = scheduler.timesteps[-SAMPLING.n_reverse :][k]
    context, empty = (torch.from_numpy(inputs[name]).to(x) for name in ("context", "uncond_context"))
    without = models.unet(x, timestep, encoder_hidden_states=empty.expand_as(context)).sample
    within = models.unet(x, timestep, encoder_hidden_states=context).sample
    noise = without + GUIDANCE * (within - without)
    return scheduler.step(noise, timestep, x).pred_original_sample, noise


@pytest.mark.parametrize("k", STEPS)
def test_a_prediction_is_diffusers_own(exact: Any, inputs: dict[str, Any], k: int) -> None:
    """In float64, so that only diffusers' float32 table of alphas differs."""
    x = noised(inputs)
    clean, noise = DiffusionGenerator(exact, **inputs, sampling=SAMPLING).predict(x, k)
    expected, their_noise = by_diffusers(exact, inputs, x, k)
    torch.testing.assert_close(noise, their_noise, rtol=0, atol=1e-10 * float(noise.abs().max()))
    # Their alpha is a float32 product of `timestep` factors; see test_schedule.py.
    (timestep, keep, _) = list(ddim_schedule(exact, SAMPLING))[k]
    off = (timestep + 2) * torch.finfo(torch.float32).eps / 2
    tolerance = off * float(expected.abs().max() + noise.abs().max() / (keep * (1 - keep)) ** 0.5)
    torch.testing.assert_close(clean, expected, rtol=0, atol=tolerance)
    assert not clean.requires_grad


@pytest.mark.parametrize("k", STEPS)
def test_pulling_back_is_the_gradient_of_the_clean_estimate(
    exact: Any, inputs: dict[str, Any], v: np.ndarray, k: int
) -> None:
    """Autograd through diffusers' own step written out, and central differences of `predict`."""
    x, at = noised(inputs), torch.from_numpy(v).double()
    generator = DiffusionGenerator(exact, **inputs, sampling=SAMPLING)
    found = generator.linearise(x, k)[2](at)
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        clean, _ = by_diffusers.__wrapped__(exact, inputs, leaf, k)
        (expected,) = torch.autograd.grad(clean, leaf, at)
    norms = expected.flatten(1).norm(dim=1)
    assert norms.min() > 0
    # Diffusers' alphas are float32, and enter as a root and a quotient of 1 - alpha.
    assert ((found - expected).flatten(1).norm(dim=1) / norms).max() < 1e-5
    direction = torch.from_numpy(np.random.default_rng(9).standard_normal(x.shape))
    h = 1e-5
    ahead, behind = generator.predict(x + h * direction, k)[0], generator.predict(x - h * direction, k)[0]
    along = ((ahead - behind) / (2 * h) * at).sum((1, 2, 3))
    # Central differences: the error goes with h squared, 1e-10, and rounding with 1e-16 / h.
    torch.testing.assert_close((found * direction).sum((1, 2, 3)), along, rtol=1e-6, atol=1e-8 * float(norms.max()))


def test_the_steps_one_by_one_are_stage_1(small_models: Any, inputs: dict[str, Any], on_engines: Any) -> None:
    generator = DiffusionGenerator(small_models, **inputs, sampling=SAMPLING)
    for sampler in (generator, on_engines):
        x = sampler.start(inputs["noise"])
        for k, (_, keep, keep_next) in enumerate(sampler.schedule):
            x = ddim_update(x, sampler.predict(x, k)[1], keep, keep_next)
        np.testing.assert_allclose(np.asarray(sampler.decode(x)), np.asarray(sampler.stage1()), atol=2e-5)


@pytest.mark.parametrize("k", STEPS)
def test_engines_predict_and_pull_back_as_pytorch_does(
    small_models: Any, exact: Any, inputs: dict[str, Any], v: np.ndarray, on_engines: EngineGenerator, k: int
) -> None:
    """Both against float64: engines are no further from it than some times float32 by PyTorch itself."""
    x = noised(inputs, torch.float32)
    by_torch = DiffusionGenerator(small_models, **inputs, sampling=SAMPLING)
    reference = DiffusionGenerator(exact, **inputs, sampling=SAMPLING)
    exactly = [*reference.predict(x.double(), k), reference.linearise(x.double(), k)[2](torch.from_numpy(v).double())]
    torchs = [*by_torch.predict(x, k), by_torch.linearise(x, k)[2](torch.from_numpy(v))]
    found = [*on_engines.predict(x.numpy(), k), on_engines.linearise(x.numpy(), k)[2](v)]
    for expected, theirs, ours in zip(exactly, torchs, found, strict=True):
        assert (type(ours), ours.dtype) == (np.ndarray, np.float32)
        size = expected.abs().amax((1, 2, 3), keepdim=True).numpy()
        theirs_off = np.abs((theirs.double() - expected).numpy() / size).max()
        ours_off = np.abs((ours - expected.numpy()) / size).max()
        # The same sums in float32, with terms in another order; a few units where PyTorch happened to be exact.
        assert ours_off < 8 * max(theirs_off, 8 * float(np.finfo(np.float32).eps))


def samplers(models: Any, inputs: dict[str, Any], engines: Any, rows: list[int]) -> list[Sampler[Any]]:
    given = {name: array if name == "uncond_context" else array[rows] for name, array in inputs.items()}
    return [
        DiffusionGenerator(models, **given, sampling=SAMPLING),
        EngineGenerator(engines, models, *given.values(), sampling=SAMPLING),
    ]


def test_a_trial_does_not_depend_on_its_batch(
    small_models: Any, inputs: dict[str, Any], v: np.ndarray, torch_engines: Callable[..., dict[str, TorchEngine]]
) -> None:
    engines, rows = torch_engines(small_models), [2, 0]
    x = noised(inputs, torch.float32).numpy()
    for whole, part in zip(
        samplers(small_models, inputs, engines, [0, 1, 2]), samplers(small_models, inputs, engines, rows), strict=True
    ):
        kind: Callable[[Any], Any] = torch.from_numpy if isinstance(whole, DiffusionGenerator) else np.asarray
        np.testing.assert_array_equal(part.start(inputs["noise"][rows]), whole.start(inputs["noise"])[rows])
        together = [*whole.predict(kind(x), 3), whole.linearise(kind(x), 3)[2](kind(v))]
        alone = [*part.predict(kind(x[rows]), 3), part.linearise(kind(x[rows]), 3)[2](kind(v[rows]))]
        for one, other in zip(together, alone, strict=True):
            scale = np.abs(np.asarray(one)[rows]).max((1, 2, 3), keepdims=True)
            # Networks may add up in another order in batches of another size.
            assert np.abs((np.asarray(other) - np.asarray(one)[rows]) / scale).max() < 1e-4


@pytest.mark.parametrize("size", [1e-30, 1e-7, 1e4])
def test_half_precision_does_not_lose_a_small_gradient(small_world: Path, inputs: dict[str, Any], size: float) -> None:
    """A product is linear: a gradient of any size comes back scaled, and not as zero or infinity."""
    generator = DiffusionGenerator(load_models(str(small_world), dtype="float16"), **inputs, sampling=SAMPLING)
    x, v = noised(inputs, torch.float32), torch.ones(3, 4, 4, 4)
    expected, found = generator.linearise(x, 2)[2](v), generator.linearise(x, 2)[2](v * size)
    torch.testing.assert_close(found / size, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))


def test_noise_of_another_shape_is_refused(
    small_models: Any, inputs: dict[str, Any], on_engines: EngineGenerator
) -> None:
    for sampler in (DiffusionGenerator(small_models, **inputs, sampling=SAMPLING), on_engines):
        with pytest.raises(ShapeError, match="noise has shape"):
            sampler.start(inputs["noise"][:2])
