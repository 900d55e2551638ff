import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.pixels import PixelGenerator
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.refine.adam import minimise
from minddiffuser.runtime.refine.autograd import AutogradObjective
from minddiffuser.runtime.refine.loss import semantic_loss, structural_loss
from minddiffuser.runtime.refine.settings import AdamSettings
from minddiffuser.runtime.sampling import Sampling


def inputs_for(models: Any, rng: np.random.Generator, n: int = 2) -> dict[str, np.ndarray]:
    return {
        "latent": rng.standard_normal((n, *models.latent_shape)),
        "context": rng.standard_normal((n, *models.context_shape)),
        "uncond_context": rng.standard_normal(models.context_shape),
        "noise": rng.standard_normal((n, *models.latent_shape)),
    }


def target_for(models: Any, rng: np.random.Generator, n: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Structure of random pictures, and a mask that keeps a quarter."""
    with torch.no_grad():
        structure, _ = models.structure(torch.from_numpy(rng.random((n, 3, models.image_size, models.image_size))))
    return structure.numpy(), rng.random(models.structure_shape) < 0.25


@pytest.mark.parametrize("backprop_steps", [pytest.param(None, marks=pytest.mark.long), 2, 0])
def test_gradients_are_those_of_finite_differences(small_world: Path, rng, backprop_steps) -> None:
    """Float64 networks, all the way from latent and context to the loss with its semantic term."""
    models = load_models(small_world, dtype="float64")
    sampling = Sampling(guidance_scale=2.0, n_steps=10, n_noise=4, n_reverse=3)
    inputs = inputs_for(models, rng)
    generator = DiffusionGenerator(models, **inputs, sampling=sampling, backprop_steps=backprop_steps)
    target, mask = target_for(models, rng)
    settings = AdamSettings(semantic_weight=0.3, backprop_steps=backprop_steps)
    objective = AutogradObjective(models, generator, target, mask, settings, rng.standard_normal((2, 32)))
    params = {key: value + 0.1 for key, value in generator.initial().items()}
    loss, gradients, _ = objective.value_and_gradient(params)
    assert loss.dtype == torch.float64
    assert set(gradients) == set(params) == ({"latent"} if backprop_steps == 0 else {"latent", "context"})
    for name, gradient in gradients.items():
        largest = gradient.abs().max().item()
        assert largest > 1e-8
        for trial in range(2):
            # One random direction tests every entry at once; single entries show which one is wrong.
            direction = torch.from_numpy(rng.standard_normal(gradient.shape[1:]))
            entry = torch.zeros_like(direction)
            entry.view(-1)[rng.integers(entry.numel())] = 1.0
            for along in (direction, entry):
                derivative = difference(objective, params, name, trial, along)
                assert derivative == pytest.approx((gradient[trial] * along).sum().item(), rel=1e-5, abs=1e-6 * largest)


def difference(objective, params, name: str, trial: int, direction: torch.Tensor, width: float = 1e-5) -> float:
    ends = []
    for sign in (1, -1):
        moved = params[name].clone()
        moved[trial] += sign * width * direction
        loss, _, _ = objective.value_and_gradient({**params, name: moved})
        ends.append(loss[trial].item())
    return (ends[0] - ends[1]) / (2 * width)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_networks_give_the_same_direction(small_world: Path, rng, dtype) -> None:
    exact, narrow = load_models(small_world), load_models(small_world, dtype=dtype)
    inputs, (target, mask) = inputs_for(exact, rng), target_for(exact, rng)

    def gradients(models: Any) -> dict[str, torch.Tensor]:
        generator = DiffusionGenerator(
            models, **inputs, sampling=Sampling(guidance_scale=2.0, n_noise=None, n_reverse=3)
        )
        objective = AutogradObjective(models, generator, target, mask, AdamSettings())
        loss, found_gradients, image = objective.value_and_gradient(generator.initial())
        assert {loss.dtype, image.dtype, *(gradient.dtype for gradient in found_gradients.values())} == {torch.float32}
        return found_gradients

    for name, gradient in gradients(narrow).items():
        expected = gradients(exact)[name]
        cosine = torch.nn.functional.cosine_similarity(gradient.flatten(1), expected.flatten(1))
        assert cosine.min() > (0.999 if dtype == "float16" else 0.97), name
        assert gradient.norm().item() == pytest.approx(expected.norm().item(), rel=0.1)


def test_value_is_the_loss_of_the_rendered_picture(toy_models, toy_inputs, rng) -> None:
    generator = DiffusionGenerator(toy_models, **toy_inputs, sampling=Sampling(n_reverse=3))
    target, mask = target_for(toy_models, rng, n=3)
    semantic = rng.standard_normal((3, 9))
    chosen = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    settings = AdamSettings(layer_weights=chosen, loss_mean="all", semantic_weight=0.5)
    objective = AutogradObjective(toy_models, generator, target, mask, settings, semantic)
    loss, _, image = objective.value_and_gradient(generator.initial())
    torch.testing.assert_close(image, generator.stage1(), atol=0, rtol=0)
    assert not image.requires_grad
    assert not loss.requires_grad
    structure, feature = toy_models.structure(image, semantic=True)
    expected = structural_loss(structure.numpy(), target, mask, np.array(chosen), mean="all")
    expected = expected + 0.5 * semantic_loss(feature.numpy(), semantic)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("params", [("latent",), ("context",)])
def test_only_the_chosen_parameters_are_refined(toy_models, toy_inputs, rng, params) -> None:
    generator = DiffusionGenerator(toy_models, **toy_inputs, sampling=Sampling(n_reverse=3))
    settings = AdamSettings(steps=3, learning_rate=0.05, params=params)
    objective = AutogradObjective(toy_models, generator, *target_for(toy_models, rng, n=3), settings)
    start = generator.initial()
    refined = minimise(objective, start, settings)
    for name in start:
        assert torch.equal(refined.params[name], start[name]) == (name not in params)
    torch.testing.assert_close(refined.params["context"][:, 0], start["context"][:, 0], atol=0, rtol=0)
    assert (refined.best_step > 0).all()


@pytest.mark.parametrize("backprop_steps", [None, 2, 0])
def test_a_trial_refines_alike_in_every_batch(toy_models, toy_inputs, rng, backprop_steps) -> None:
    target, mask = target_for(toy_models, rng, n=3)
    settings = AdamSettings(steps=8, learning_rate=0.05, backprop_steps=backprop_steps, layer_weights="reference")

    def run(rows: list[int]) -> Any:
        chosen = {key: value if key == "uncond_context" else value[rows] for key, value in toy_inputs.items()}
        generator = DiffusionGenerator(
            toy_models, **chosen, sampling=Sampling(n_reverse=4), backprop_steps=backprop_steps
        )
        objective = AutogradObjective(toy_models, generator, target[rows], mask, settings)
        return minimise(objective, generator.initial(), settings)

    whole, part = run([0, 1, 2]), run([2, 1])
    torch.testing.assert_close(part.image, whole.image[[2, 1]], atol=1e-6, rtol=0)
    assert (whole.loss_curve.min(axis=0) < whole.loss_curve[0]).all()


def test_a_trial_that_is_not_finite_disturbs_nobody(toy_models, toy_inputs, rng) -> None:
    target, mask = target_for(toy_models, rng, n=3)
    settings = AdamSettings(steps=4, learning_rate=0.05)

    def run(latent: np.ndarray) -> Any:
        generator = DiffusionGenerator(toy_models, **{**toy_inputs, "latent": latent}, sampling=Sampling(n_reverse=3))
        return minimise(AutogradObjective(toy_models, generator, target, mask, settings), generator.initial(), settings)

    broken = toy_inputs["latent"].copy()
    broken[1, 0, 0, 0] = np.nan
    whole, part = run(toy_inputs["latent"]), run(broken)
    assert part.failed.tolist() == [False, True, False]
    torch.testing.assert_close(part.image[[0, 2]], whole.image[[0, 2]], atol=0, rtol=0)


def test_nothing_in_stage_2_needs_diffusion(small_world: Path, rng) -> None:
    """A picture of plain pixels, refined towards another picture's structure, comes nearer to it."""
    models = load_models(small_world)
    target, _ = target_for(models, rng)
    mask = np.ones(models.structure_shape, dtype=bool)
    generator = PixelGenerator(torch.full((2, 3, 32, 32), 0.5), n_levels=3)
    start = generator.initial()
    settings = AdamSettings(steps=25, learning_rate=0.1, params=tuple(start))
    refined = minimise(AutogradObjective(models, generator, target, mask, settings), start, settings)
    assert (refined.loss_curve.min(axis=0) < 0.7 * refined.loss_curve[0]).all()
    with torch.no_grad():
        structure, _ = models.structure(refined.image)
    again = structural_loss(structure.numpy(), target, mask, np.full(6, 1 / 6))
    np.testing.assert_allclose(again, refined.loss_curve.min(axis=0), rtol=1e-4)


def peak_bytes(models: Any, rng: np.random.Generator, folder: Path, n_reverse: int, checkpointing: bool) -> int:
    """Most bytes of tensors alive at once during one gradient, above what was alive before.

    From the records of PyTorch's own allocator (the profiler logs every allocation and release): it counts what
    autograd keeps, what checkpoints recompute and all that passes in between. The process's resident memory would
    not do: at this size the libraries' own code drowns it.
    """
    inputs = inputs_for(models, rng)
    generator = DiffusionGenerator(
        models, **inputs, sampling=Sampling(n_reverse=n_reverse, n_noise=None), checkpointing=checkpointing
    )
    objective = AutogradObjective(models, generator, *target_for(models, rng), AdamSettings())
    start = generator.initial()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        objective.value_and_gradient(start)
    log = folder / f"{n_reverse}-{checkpointing}.json"
    profile.export_chrome_trace(str(log))
    events = [event for event in json.loads(log.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    alive = np.cumsum([event["args"]["Bytes"] for event in sorted(events, key=lambda event: event["ts"])])
    return int(alive.max())


@pytest.mark.long
def test_memory_does_not_grow_with_the_steps(small_world: Path, rng, tmp_path) -> None:
    models = load_models(small_world)
    few, many = (peak_bytes(models, rng, tmp_path, n_reverse, True) for n_reverse in (3, 9))
    assert many <= 1.5 * few, f"{many} bytes at 9 steps, {few} at 3"
    # The measure sees what it should: without checkpoints each step keeps its activations.
    without = peak_bytes(models, rng, tmp_path, 6, False)
    assert without > 2 * few, f"{without} bytes at 6 steps without checkpoints, {few} at 3 with"


def test_arrays_that_do_not_fit_are_refused(toy_models, toy_inputs, rng) -> None:
    generator = DiffusionGenerator(toy_models, **toy_inputs, sampling=Sampling(n_reverse=2))
    target, mask = target_for(toy_models, rng, n=3)

    def build(target=target, mask=mask, settings=AdamSettings(), semantic=None) -> AutogradObjective:  # noqa: B008
        return AutogradObjective(toy_models, generator, target, mask, settings, semantic)

    with pytest.raises(ShapeError, match="bool mask"):
        build(mask=mask[:5])
    with pytest.raises(ShapeError, match="of float64"):
        build(mask=mask.astype(float))
    with pytest.raises(InputError, match="keeps no structure"):
        build(mask=np.zeros_like(mask))
    with pytest.raises(InputError, match="semantic_target"):
        build(settings=AdamSettings(semantic_weight=1.0))
    bad = target.copy()
    bad[1][mask] = np.nan
    with pytest.raises(InputError, match=r"row \[1\]"):
        build(target=bad)
    with pytest.raises(ShapeError, match="layer preset"):
        build(target=target[:2]).value_and_gradient(generator.initial())
    with pytest.raises(InputError, match="context, latent"):
        build(settings=AdamSettings(params=("level_0",))).value_and_gradient(generator.initial())


def test_a_target_may_be_anything_outside_the_mask(toy_models, toy_inputs, rng) -> None:
    generator = DiffusionGenerator(toy_models, **toy_inputs, sampling=Sampling(n_reverse=2))
    target, mask = target_for(toy_models, rng, n=3)
    start = generator.initial()
    expected, _, _ = AutogradObjective(toy_models, generator, target, mask, AdamSettings()).value_and_gradient(start)
    holes = np.where(mask, target, np.nan)
    loss, gradients, _ = AutogradObjective(toy_models, generator, holes, mask, AdamSettings()).value_and_gradient(start)
    torch.testing.assert_close(loss, expected, atol=0, rtol=0)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
