"""The networks of both stages behind one interface: PyTorch's, and a bundle's engines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.bundle import Bundle
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.engines import EngineGenerator
from minddiffuser.runtime.networks import EngineNetworks, Start, TorchNetworks
from minddiffuser.runtime.refine.autograd import AutogradObjective
from minddiffuser.runtime.refine.engines import EngineObjective
from minddiffuser.runtime.refine.settings import RefineSettings
from minddiffuser.runtime.sampling import Sampling

SHORT: dict[str, Any] = {"sampling": Sampling(n_steps=10, n_noise=5, n_reverse=4)}


@pytest.fixture
def engines(toy_bundle: Path) -> Iterator[EngineSet]:
    with EngineSet(Bundle.open(toy_bundle), EngineSettings(backend="ort", threads=1)) as opened:
        yield opened


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.random((5, 3, 32, 32)).astype(np.float32)


def start(rng: np.random.Generator, **choices: Any) -> Start:
    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    arrays = {"latent": drawn(2, 4, 4, 4), "context": drawn(2, 15, 16), "uncond_context": drawn(15, 16)}
    return Start(**arrays, noise=drawn(2, 4, 4, 4), **SHORT, **choices)


def test_both_say_what_they_are(small_models: Any, engines: EngineSet) -> None:
    by_torch, by_engines = TorchNetworks(small_models), EngineNetworks(engines.bundle, engines)
    for name in ("hash", "preset", "image_size", "latent_shape"):
        assert getattr(by_torch, name) == getattr(by_engines, name), name
    assert by_torch.hash == small_models.hash
    assert by_torch.description == "PyTorch, cpu, float32"
    assert by_engines.description == "ONNX Runtime, CPUExecutionProvider, fp32"


@pytest.mark.parametrize("backprop_steps", [None, 2])
def test_a_start_reaches_the_generator_whole(
    small_models: Any, rng: np.random.Generator, backprop_steps: int | None
) -> None:
    given = start(rng, sampling=Sampling(guidance_scale=2.5), backprop_steps=backprop_steps)
    found = TorchNetworks(small_models, checkpointing=False).generator(given)
    assert isinstance(found, DiffusionGenerator)
    expected = DiffusionGenerator(
        small_models,
        given.latent,
        given.context,
        given.uncond_context,
        given.noise,
        sampling=Sampling(guidance_scale=2.5),
        backprop_steps=backprop_steps,
        **SHORT,
    )
    torch.testing.assert_close(found.stage1(), expected.stage1(), rtol=0, atol=0)
    assert found.initial().keys() == expected.initial().keys()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_checkpointing_reaches_the_generator(
    small_models: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    chosen: list[bool] = []
    monkeypatch.setattr(
        DiffusionGenerator, "__init__", lambda self, *_a, **named: chosen.append(named["checkpointing"])
    )
    TorchNetworks(small_models, checkpointing=checkpointing).generator(start(rng))
    assert chosen == [checkpointing]


def test_pictures_of_engines_are_those_of_their_formulas(engines: EngineSet, rng: np.random.Generator) -> None:
    """The toy networks' stage 1, summed up by hand."""
    given = start(rng, sampling=Sampling(guidance_scale=2.0))
    generator = EngineNetworks(engines.bundle, engines).generator(given)
    assert isinstance(generator, EngineGenerator)
    assert isinstance(given.noise, np.ndarray)
    alphas = engines.bundle.arrays["alphas_cumprod"]
    latent = alphas[501] ** 0.5 * given.latent + (1 - alphas[501]) ** 0.5 * given.noise
    # Token 0 is the start's own, and is averaged like the others.
    push = 2.0 * (given.context - given.uncond_context).mean((1, 2), keepdims=True)[..., None]
    for timestep in (301, 201, 101, 1):
        keep, after = alphas[timestep], alphas[timestep - 100] if timestep > 1 else alphas[0]
        scale = (after / keep) ** 0.5
        latent = scale * latent + ((1 - after) ** 0.5 - scale * (1 - keep) ** 0.5) * push
    expected = 1 / (1 + np.exp(-latent[:, :3].repeat(8, 2).repeat(8, 3)))
    np.testing.assert_allclose(generator.stage1(), expected, atol=1e-5)


def test_objectives_are_of_the_networks_own_kind(
    small_models: Any, engines: EngineSet, rng: np.random.Generator
) -> None:
    target = rng.standard_normal((2, 6, 17, 32)).astype(np.float32)
    mask, settings = np.ones((6, 17, 32), bool), RefineSettings(backprop_steps=2)
    given = start(rng, backprop_steps=2)
    kinds = {}
    for networks in (TorchNetworks(small_models), EngineNetworks(engines.bundle, engines)):
        generator = networks.generator(given)
        objective = networks.objective(generator, target, mask, settings, None)
        loss, gradients, image = objective.value_and_gradient(generator.initial())
        assert (tuple(loss.shape), tuple(image.shape)) == ((2,), (2, 3, 32, 32))
        assert set(gradients) == {"latent", "context"}
        kinds[type(networks)] = type(objective)
    assert kinds == {TorchNetworks: AutogradObjective, EngineNetworks: EngineObjective}


@torch.no_grad()
def test_features_are_the_models_own(small_models: Any, images: np.ndarray) -> None:
    networks = TorchNetworks(small_models)
    structure, token = small_models.structure(torch.from_numpy(images), semantic=True)
    found = networks.features(images, semantic=True)
    np.testing.assert_allclose(found[0], structure.numpy(), atol=1e-6)
    assert found[1] is not None
    np.testing.assert_allclose(found[1], token.numpy(), atol=1e-6)
    assert networks.features(images, semantic=False)[1] is None
    embedding = networks.embedding(images)
    assert type(embedding) is np.ndarray
    np.testing.assert_allclose(embedding, small_models.embedding(torch.from_numpy(images)).numpy(), atol=1e-6)


@pytest.mark.parametrize(("largest", "sizes"), [(None, [5]), (2, [2, 2, 1]), (8, [5])])
def test_features_of_engines_come_in_batches_that_they_take(
    engines: EngineSet,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    largest: int | None,
    sizes: list[int],
) -> None:
    whole = engines["clip_structure"].run({"image": images})
    given: list[int] = []
    engine: Any = engines["clip_structure"]
    real = engine.run

    def run(feeds: dict[str, np.ndarray]) -> Any:
        given.append(len(feeds["image"]))
        return real(feeds)

    monkeypatch.setattr(engine, "run", run)
    monkeypatch.setattr(EngineSet, "largest_batch", largest)
    networks = EngineNetworks(engines.bundle, engines)
    structure, token = networks.features(images, semantic=True)
    assert given == sizes
    np.testing.assert_allclose(structure, whole["structure"], rtol=1e-6)
    assert token is not None
    np.testing.assert_allclose(token, whole["semantic"], rtol=1e-6)
    assert networks.features(images, semantic=False)[1] is None
    np.testing.assert_allclose(networks.embedding(images), whole["embedding"], rtol=1e-6)
