"""Stage 1 on engines against the generator that PyTorch differentiates."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.backends.reference import TorchEngine
from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.generators.ddim import NoiseTable
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.engines import EngineGenerator
from minddiffuser.runtime.generators.noise import fresh_noise
from minddiffuser.runtime.sampling import Sampling

TRIALS = ["4", "7"]
SHORT: dict[str, Any] = {"sampling": Sampling(n_steps=10, n_noise=7, n_reverse=6)}
Build = Callable[..., EngineGenerator]


@pytest.fixture
def inputs(small_models: Any, rng: np.random.Generator) -> dict[str, Any]:
    latent, noise = (rng.standard_normal((2, *small_models.latent_shape)).astype(np.float32) for _ in "zn")
    context = rng.standard_normal((3, *small_models.context_shape)).astype(np.float32)
    return {"latent": latent, "context": context[:2], "uncond_context": context[2], "noise": noise}


class Counted:
    """An engine that remembers what it was given."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self.given: list[dict[str, Any]] = []

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        self.given.append(dict(feeds))
        return self._engine.run(feeds)

    def place(self, array: Any) -> Any:
        return self._engine.place(array)


@pytest.fixture
def engines(small_models: Any, torch_engines: Callable[..., dict[str, TorchEngine]]) -> dict[str, Counted]:
    return {name: Counted(engine) for name, engine in torch_engines(small_models).items()}


@pytest.fixture
def build(small_models: Any, engines: dict[str, Counted], inputs: dict[str, Any]) -> Build:
    def make(**changes: Any) -> EngineGenerator:
        arrays = {name: changes.pop(name, array) for name, array in inputs.items()}
        return EngineGenerator(engines, small_models, *arrays.values(), **changes)

    return make


@pytest.mark.parametrize("guidance", [5.0, 1.0, 0.0])
@pytest.mark.parametrize(
    "chosen",
    [Sampling(), SHORT["sampling"], Sampling(n_noise=None, n_reverse=12)],
    ids=["published", "short", "joined"],
)
def test_the_pictures_are_those_of_the_differentiable_generator(
    small_models: Any, build: Build, inputs: dict[str, Any], guidance: float, chosen: Sampling
) -> None:
    sampling = replace(chosen, guidance_scale=guidance)
    expected = DiffusionGenerator(small_models, **inputs, sampling=sampling).stage1()
    found = build(sampling=sampling).stage1()
    assert type(found) is np.ndarray
    assert (found.dtype, found.shape) == (np.float32, (2, 3, 32, 32))
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("set_alpha_to_one", [False, True])
def test_the_models_own_schedule_is_used(
    small_models: Any, engines: dict[str, Counted], inputs: dict[str, Any], set_alpha_to_one: bool
) -> None:
    """Another offset and end than Stable Diffusion's, so that neither is taken for granted."""
    other = NoiseTable(small_models.alphas_cumprod, steps_offset=3, set_alpha_to_one=set_alpha_to_one)

    class Other:
        steps_offset, latent_shape = 3, small_models.latent_shape

        def __getattr__(self, name: str) -> Any:
            return set_alpha_to_one if name == "set_alpha_to_one" else getattr(small_models, name)

    expected = DiffusionGenerator(Other(), **inputs, **SHORT).stage1()
    found = EngineGenerator(engines, other, *inputs.values(), **SHORT).stage1()
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("backprop_steps", [None, 6, 2, 0])
def test_every_truncation_starts_at_the_same_picture(
    small_models: Any, build: Build, engines: dict[str, Counted], inputs: dict[str, Any], backprop_steps: int | None
) -> None:
    whole = build(**SHORT).stage1()
    generator = build(**SHORT, backprop_steps=backprop_steps)
    engines["denoise"].given.clear()
    params = generator.initial()
    again = generator.initial()
    # The first steps run once, however often a refinement starts.
    assert len(engines["denoise"].given) == (0 if backprop_steps is None else 6 - backprop_steps)
    expected = DiffusionGenerator(small_models, **inputs, **SHORT, backprop_steps=backprop_steps).initial()
    assert list(params) == list(expected)
    for name, start in expected.items():
        assert params[name].dtype == np.float32
        np.testing.assert_allclose(params[name], start.numpy(), atol=1e-5)
        params[name] += 1  # a caller may change what it got
        np.testing.assert_array_equal(generator.initial()[name], again[name])
    engines["denoise"].given.clear()
    image = generator.render(again)
    assert len(engines["denoise"].given) == (6 if backprop_steps is None else backprop_steps)
    np.testing.assert_allclose(image, whole, atol=1e-6)


@pytest.mark.parametrize("backprop_steps", [None, 2, 0])
def test_parameters_that_moved_give_the_same_pictures(
    small_models: Any, build: Build, inputs: dict[str, Any], rng: np.random.Generator, backprop_steps: int | None
) -> None:
    generator = build(**SHORT, backprop_steps=backprop_steps)
    reference = DiffusionGenerator(small_models, **inputs, **SHORT, backprop_steps=backprop_steps)
    moved = {k: v + 0.3 * rng.standard_normal(v.shape).astype(np.float32) for k, v in generator.initial().items()}
    with torch.no_grad():
        expected = reference.render({name: torch.from_numpy(array) for name, array in moved.items()})
    found = generator.render(moved)
    assert np.abs(found - generator.stage1()).max() > 0.01
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


def test_all_latents_are_kept_in_order(build: Build, engines: dict[str, Counted]) -> None:
    generator = build(**SHORT, backprop_steps=3)
    params = generator.initial()
    engines["denoise"].given.clear()
    latents = generator.latents(params)
    assert len(latents) == 4
    for row, (latent, given) in enumerate(zip(latents, engines["denoise"].given, strict=False)):
        assert given["latent"] is latent  # as the engine gave it: nothing is copied in between
        inputs = generator.step_inputs(latent, generator.whole_context(params), generator.first_step + row)
        assert inputs.keys() == given.keys()
        for name, array in inputs.items():
            np.testing.assert_array_equal(array, given[name])
    assert [given["step"][0] for given in engines["denoise"].given] == [201, 101, 1]


def test_the_beginning_of_sequence_token_stays_where_it_is(build: Build) -> None:
    generator = build(**SHORT, backprop_steps=2)
    params = generator.initial()
    image = generator.render(params)
    moved = params["context"].copy()
    moved[:, 0] += 1
    np.testing.assert_array_equal(generator.render({**params, "context": moved}), image)
    moved[:, 1] += 1
    assert np.abs(generator.render({**params, "context": moved}) - image).max() > 1e-4


def test_fresh_noise_changes_at_each_iteration_and_replays(
    small_models: Any, build: Build, inputs: dict[str, Any]
) -> None:
    noise = fresh_noise(3, TRIALS, small_models.latent_shape)
    generator = build(**SHORT, noise=noise)
    params = generator.initial()
    first, second = generator.render(params), generator.render(params)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(generator.stage1(), first)
    generator.initial()
    np.testing.assert_array_equal(generator.render(params), first)
    np.testing.assert_array_equal(generator.render(params), second)
    reference = DiffusionGenerator(small_models, **{**inputs, "noise": noise}, **SHORT)
    start = reference.initial()
    for found in (first, second):
        with torch.no_grad():
            np.testing.assert_allclose(found, reference.render(start).numpy(), atol=2e-5)


def test_a_loop_runs_all_steps_where_all_are_asked_for(build: Build, engines: dict[str, Counted]) -> None:
    """A backend's loop is used for whole runs and never for a part, for which it was not recorded."""
    calls: list[int] = []

    def loop(latent: Any, table: Any, context: Any, uncond: Any, guidance: Any) -> list[Any]:
        calls.append(len(table))
        latents = [latent]
        for row in table:
            named = {"step": row, "context": context, "uncond_context": uncond, "guidance": guidance}
            latents.append(engines["denoise"]._engine.run({"latent": latents[-1], **named})["next_latent"])
        return latents

    expected = build(**SHORT).stage1()
    engines["denoise"].given.clear()
    np.testing.assert_array_equal(build(**SHORT, loop=loop).stage1(), expected)
    assert (calls, engines["denoise"].given) == ([6], [])
    np.testing.assert_allclose(build(**SHORT, loop=loop, backprop_steps=2).stage1(), expected, atol=1e-6)
    assert calls == [6]
    assert len(engines["denoise"].given) == 6


def test_bad_arguments_are_refused_when_built(small_models: Any, build: Build, inputs: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="backprop_steps is 36"):
        build(backprop_steps=36)
    with pytest.raises(InputError, match="backprop_steps is -1"):
        build(backprop_steps=-1)
    with pytest.raises(InputError, match="fresh noise"):
        build(backprop_steps=3, noise=fresh_noise(0, TRIALS, small_models.latent_shape))
    with pytest.raises(ShapeError, match="noise has shape"):
        build(noise=inputs["noise"][:1])
    with pytest.raises(ShapeError, match="same n"):
        build(context=inputs["context"][:1])
    with pytest.raises(ShapeError, match="uncond_context"):
        build(uncond_context=inputs["uncond_context"][:1])
    with pytest.raises(InputError, match="n_noise is 50"):
        build(sampling=Sampling(n_noise=50))
