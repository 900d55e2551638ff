from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.noise import fresh_noise
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.sampling import Sampling

TRIALS = ["4", "11", "7"]


@pytest.fixture(scope="module")
def world(small_world: Path) -> Any:
    return load_models(small_world)


@pytest.fixture
def inputs(world: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Two trials of the small world."""
    latent, noise = (torch.from_numpy(rng.standard_normal((2, *world.latent_shape), dtype=np.float32)) for _ in "zn")
    context = world.encode_text(["a red cat in the snow", "a blue house"])
    return {"latent": latent, "context": context, "uncond_context": world.encode_text([""])[0], "noise": noise}


@torch.no_grad()
def by_diffusers(world: Any, given: dict[str, Any], guidance: float, start: int, n_reverse: int) -> torch.Tensor:
    """Stage 1 written out with diffusers' scheduler and the networks themselves."""
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.set_timesteps(50)
    rising = scheduler.timesteps.flip(0)
    latent = scheduler.add_noise(given["latent"], given["noise"], rising[start : start + 1])
    empty = given["uncond_context"].expand_as(given["context"])
    for timestep in scheduler.timesteps[-n_reverse:]:
        without = world.unet(latent, timestep, encoder_hidden_states=empty).sample
        with_context = world.unet(latent, timestep, encoder_hidden_states=given["context"]).sample
        noise = without + guidance * (with_context - without)
        latent = scheduler.step(noise, timestep, latent).prev_sample
    decoded = world.vae.decode(latent / world.vae.config.scaling_factor).sample
    return (decoded / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_stage_1_is_diffusers_own_loop(world, inputs, guidance) -> None:
    generator = DiffusionGenerator(world, **inputs, sampling=Sampling(guidance_scale=guidance))
    expected = by_diffusers(world, inputs, guidance, start=37, n_reverse=35)
    image = generator.stage1()
    assert image.shape == (2, 3, 32, 32)
    assert image.dtype == torch.float32
    assert expected.std() > 0.01
    torch.testing.assert_close(image, expected, atol=2e-5, rtol=0)


def test_noising_to_where_denoising_begins(world, inputs) -> None:
    generator = DiffusionGenerator(world, **inputs, sampling=Sampling(n_noise=None, n_reverse=12))
    expected = by_diffusers(world, inputs, 5.0, start=11, n_reverse=12)
    torch.testing.assert_close(generator.stage1(), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_networks_keep_latents_and_pictures_in_float32(small_world, world, inputs, dtype) -> None:
    narrow = load_models(small_world, dtype=dtype)
    generator = DiffusionGenerator(narrow, **inputs, sampling=Sampling(n_reverse=3, n_noise=None))
    leaves = {name: value.requires_grad_() for name, value in generator.initial().items()}
    image = generator.render(leaves)
    gradients = torch.autograd.grad(image.sum(), list(leaves.values()))
    assert {image.dtype, *(value.dtype for value in (*leaves.values(), *gradients))} == {torch.float32}
    exact = DiffusionGenerator(world, **inputs, sampling=Sampling(n_reverse=3, n_noise=None)).stage1()
    # What rounding the weights alone does, in exact arithmetic: rounding what passes between layers is as much again,
    # a few times over, however a processor adds up.
    rounded = load_models(small_world)
    for part in (rounded.unet, rounded.vae):
        for parameter in part.parameters():
            parameter.data = parameter.data.to(narrow.dtype).float()
    scale = (
        (DiffusionGenerator(rounded, **inputs, sampling=Sampling(n_reverse=3, n_noise=None)).stage1() - exact)
        .abs()
        .max()
    )
    assert 0 < scale < 0.05
    assert (image - exact).abs().max() < 8 * scale


@pytest.mark.parametrize("backprop_steps", [None, 6, 4, 1, 0])
def test_every_truncation_starts_at_the_same_picture(toy_models, toy_inputs, backprop_steps) -> None:
    full = DiffusionGenerator(toy_models, **toy_inputs, sampling=Sampling(n_reverse=6)).stage1()
    generator = DiffusionGenerator(
        toy_models, **toy_inputs, sampling=Sampling(n_reverse=6), backprop_steps=backprop_steps
    )
    toy_models.calls.clear()
    params = generator.initial()
    n_before = len(toy_models.calls)
    image = generator.render(params)
    torch.testing.assert_close(image, full, atol=0, rtol=0)
    torch.testing.assert_close(generator.stage1(), full, atol=0, rtol=0)
    assert n_before == (0 if backprop_steps is None else 6 - backprop_steps)
    assert set(params) == ({"latent"} if backprop_steps == 0 else {"latent", "context"})


def test_truncation_renders_only_the_last_steps_and_computes_the_first_once(toy_models, toy_inputs) -> None:
    generator = DiffusionGenerator(toy_models, **toy_inputs, sampling=Sampling(n_reverse=6), backprop_steps=2)
    params = generator.initial()
    generator.initial()
    assert [timestep for _, timestep in toy_models.calls] == [101, 81, 61, 41]
    toy_models.calls.clear()
    generator.render(params)
    assert toy_models.calls == [(6, 21), (6, 1)]


def test_guidance_1_leaves_the_unconditional_half_out(toy_models, toy_inputs) -> None:
    DiffusionGenerator(toy_models, **toy_inputs, sampling=Sampling(n_reverse=2, guidance_scale=1.0)).stage1()
    assert toy_models.calls == [(3, 21), (3, 1)]


@pytest.mark.parametrize("backprop_steps", [None, 3])
def test_checkpointing_changes_nothing_but_memory(world, inputs, backprop_steps) -> None:
    def run(checkpointing: bool) -> tuple[torch.Tensor, ...]:
        generator = DiffusionGenerator(
            world,
            **inputs,
            sampling=Sampling(n_reverse=5, n_noise=4),
            backprop_steps=backprop_steps,
            checkpointing=checkpointing,
        )
        leaves = {name: value.requires_grad_() for name, value in generator.initial().items()}
        image = generator.render(leaves)
        return (image.detach(), *torch.autograd.grad((image**2).sum(), list(leaves.values())))

    for with_checkpoints, without in zip(run(True), run(False), strict=True):
        assert without.abs().max() > 0
        torch.testing.assert_close(with_checkpoints, without, atol=0, rtol=1e-6)


def test_the_beginning_of_sequence_token_stays_where_it_is(toy_models, toy_inputs) -> None:
    generator = DiffusionGenerator(toy_models, **toy_inputs, sampling=Sampling(n_reverse=3))
    params = generator.initial()
    image = generator.render(params)
    leaf = params["context"].requires_grad_()
    (gradient,) = torch.autograd.grad(generator.render(params).sum(), leaf)
    assert gradient[:, 0].abs().max() == 0
    assert gradient[:, 1:].abs().min() > 0
    moved = params["context"].detach().clone()
    moved[:, 0] += 1.0
    torch.testing.assert_close(generator.render({**params, "context": moved}), image, atol=0, rtol=0)


def test_fresh_noise_changes_at_each_iteration_and_replays(toy_models, toy_inputs) -> None:
    noise = fresh_noise(3, TRIALS, toy_models.latent_shape)
    generator = DiffusionGenerator(toy_models, **{**toy_inputs, "noise": noise}, sampling=Sampling(n_reverse=3))
    params = generator.initial()
    first, second = generator.render(params), generator.render(params)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(generator.stage1(), first, atol=0, rtol=0)
    generator.initial()
    torch.testing.assert_close(generator.render(params), first, atol=0, rtol=0)
    torch.testing.assert_close(generator.render(params), second, atol=0, rtol=0)
    # Checkpoints run their steps again in the backward pass; the noise must not be drawn again with them.
    leaf = params["latent"].requires_grad_()
    torch.autograd.grad(generator.render(params).sum(), leaf)
    fixed = DiffusionGenerator(toy_models, **{**toy_inputs, "noise": noise(3)}, sampling=Sampling(n_reverse=3))
    torch.testing.assert_close(generator.render(params), fixed.stage1(), atol=0, rtol=0)


def test_bad_arguments_are_refused_when_built(toy_models, toy_inputs) -> None:
    def build(**change: Any) -> None:
        DiffusionGenerator(toy_models, **{**toy_inputs, **change})

    with pytest.raises(InputError, match="backprop_steps is 36"):
        build(backprop_steps=36)
    with pytest.raises(InputError, match="fresh noise"):
        build(backprop_steps=3, noise=fresh_noise(0, TRIALS, toy_models.latent_shape))
    with pytest.raises(ShapeError, match="noise has shape"):
        build(noise=toy_inputs["noise"][:2])
    with pytest.raises(ShapeError, match="same n"):
        build(context=toy_inputs["context"][:2])
    with pytest.raises(ShapeError, match="uncond_context"):
        build(uncond_context=toy_inputs["uncond_context"][:1])
