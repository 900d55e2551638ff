"""What a run computes with: PyTorch, and the engines of a bundle, behind one interface."""

import importlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.backends.base import Options, Start
from minddiffuser.runtime.backends.bundle import BundleBackend
from minddiffuser.runtime.backends.flops import flops_of
from minddiffuser.runtime.backends.torch import TorchBackend
from minddiffuser.runtime.bundle.open import Bundle
from minddiffuser.runtime.decoders.checkpoint import Checkpoint, open_checkpoint
from minddiffuser.runtime.engines.open import EngineSet, EngineSettings
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.engines import EngineGenerator
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.refine.autograd import AutogradObjective
from minddiffuser.runtime.refine.engines import EngineObjective
from minddiffuser.runtime.refine.settings import AdamSettings
from minddiffuser.runtime.refine.weights import StructuralWeights
from minddiffuser.runtime.sampling import Sampling

SHORT = Sampling(n_steps=10, n_noise=5, n_reverse=4)


@pytest.fixture
def engines(toy_bundle: Path) -> Iterator[EngineSet]:
    with EngineSet(Bundle.open(toy_bundle), EngineSettings(backend="ort", threads=1)) as opened:
        yield opened


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.random((5, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def checkpoint(small_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(small_checkpoint)


def on_torch(checkpoint: Checkpoint, models: Any, **options: Any) -> TorchBackend:
    return TorchBackend(checkpoint, Options(threads=1, **options), {}, models=models)


def start_of(rng: np.random.Generator) -> tuple[Start, np.ndarray]:
    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    return Start(latent=drawn(2, 4, 4, 4), context=drawn(2, 15, 16)), drawn(2, 4, 4, 4)


def test_both_say_what_they_are(checkpoint: Checkpoint, small_models: Any, engines: EngineSet) -> None:
    by_torch, by_engines = on_torch(checkpoint, small_models), BundleBackend(engines)
    for name in ("models_hash", "latent_shape", "embeds"):
        assert getattr(by_torch, name) == getattr(by_engines, name), name
    for name in ("subject", "preset", "image_size", "shapes"):
        assert getattr(by_torch.decoder, name) == getattr(by_engines.decoder, name), name
    assert by_torch.models_hash == small_models.hash
    assert by_torch.description == "PyTorch, cpu, float32"
    assert by_engines.description == "ONNX Runtime, CPUExecutionProvider, fp32"


def test_both_know_what_they_cost(checkpoint: Checkpoint, small_models: Any, toy_bundle: Path, tmp_path: Path) -> None:
    by_torch = on_torch(checkpoint, small_models).costs
    assert (by_torch.predict, by_torch.engines) == (2.0, False)
    latent, context = (torch.zeros(1, *shape) for shape in (small_models.latent_shape, small_models.context_shape))
    with torch.no_grad():
        assert by_torch.reference_flops == flops_of(lambda: small_models.predict_noise(latent, 1, context))
    counted = Path(shutil.copytree(toy_bundle, tmp_path / "counted"))
    content = json.loads((counted / "manifest.json").read_text())
    flops = {"denoise": 200, "vae_decode": 300, "structure_gradient": 700, "denoise_gradient": 450}
    for name, number in flops.items():
        content["graphs"][name]["flops"] = number
    (counted / "manifest.json").write_text(json.dumps(content))
    with EngineSet(Bundle.open(counted), EngineSettings(backend="ort", threads=1)) as opened:
        by_engines = BundleBackend(opened).costs
    assert (by_engines.predict, by_engines.pull_back, by_engines.back_only) == (2.0, 4.5, 4.5)
    assert (by_engines.decode, by_engines.structural, by_engines.reference_flops) == (3.0, 7.0, 100)


def test_costs_of_an_older_bundle_are_one_sentence(engines: EngineSet) -> None:
    with pytest.raises(InputError, match="was exported before the cost of its graphs was counted: export it again"):
        _ = BundleBackend(engines).costs


def test_both_decode_alike(checkpoint: Checkpoint, small_models: Any, engines: EngineSet) -> None:
    rows = np.random.default_rng(4).standard_normal((3, 24)).astype(np.float32)
    expected = checkpoint.decode(rows, screened=True)
    for backend in (on_torch(checkpoint, small_models), BundleBackend(engines)):
        found, begun = backend.decode(rows), backend.decode_start(rows)
        for name in ("context", "latent", "structure"):
            # A weighted sum of 24 responses, in any order.
            scale = 24 * np.finfo(np.float32).eps * np.abs(getattr(expected, name)).max()
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=scale)
        for name in ("context", "latent"):
            np.testing.assert_array_equal(getattr(begun, name), getattr(found, name))


@pytest.mark.parametrize("backprop_steps", [None, 2])
def test_a_start_reaches_the_generator_whole(
    checkpoint: Checkpoint, small_models: Any, rng: np.random.Generator, backprop_steps: int | None
) -> None:
    given, noise = start_of(rng)
    sampling = replace(SHORT, guidance_scale=2.5)
    found = on_torch(checkpoint, small_models).generator(given, noise, sampling, backprop_steps=backprop_steps)
    assert isinstance(found, DiffusionGenerator)
    expected = DiffusionGenerator(
        small_models,
        given.latent,
        given.context,
        checkpoint.uncond_context,
        noise,
        sampling=sampling,
        backprop_steps=backprop_steps,
    )
    torch.testing.assert_close(found.stage1(), expected.stage1(), rtol=0, atol=0)
    assert found.initial().keys() == expected.initial().keys()


@pytest.mark.parametrize(("option", "chosen"), [("off", False), ("on", True), ("auto", False)])
def test_checkpointing_reaches_the_generator(
    checkpoint: Checkpoint,
    small_models: Any,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    chosen: bool,
) -> None:
    found: list[bool] = []
    monkeypatch.setattr(DiffusionGenerator, "__init__", lambda self, *_a, **named: found.append(named["checkpointing"]))
    on_torch(checkpoint, small_models, checkpointing=option).generator(*start_of(rng))
    assert found == [chosen]


def test_pictures_of_engines_are_those_of_their_formulas(engines: EngineSet, rng: np.random.Generator) -> None:
    """The toy backend' stage 1, summed up by hand."""
    given, noise = start_of(rng)
    backend = BundleBackend(engines)
    generator = backend.generator(given, noise, replace(SHORT, guidance_scale=2.0))
    assert isinstance(generator, EngineGenerator)
    alphas = engines.bundle.arrays["alphas_cumprod"]
    latent = alphas[501] ** 0.5 * given.latent + (1 - alphas[501]) ** 0.5 * noise
    # Token 0 is the start's own, and is averaged like the others.
    push = 2.0 * (given.context - backend.decoder.uncond_context).mean((1, 2), keepdims=True)[..., None]
    for timestep in (301, 201, 101, 1):
        keep, after = alphas[timestep], alphas[timestep - 100] if timestep > 1 else alphas[0]
        scale = (after / keep) ** 0.5
        latent = scale * latent + ((1 - after) ** 0.5 - scale * (1 - keep) ** 0.5) * push
    expected = 1 / (1 + np.exp(-latent[:, :3].repeat(8, 2).repeat(8, 3)))
    np.testing.assert_allclose(generator.stage1(), expected, atol=1e-5)


def test_the_steps_of_engines_are_those_of_their_formulas(engines: EngineSet, rng: np.random.Generator) -> None:
    """ONNX Runtime's toy network finds the same noise everywhere, so that x0 moves with x alone."""
    given, noise = start_of(rng)
    backend = BundleBackend(engines)
    sampler = backend.generator(given, noise, replace(SHORT, guidance_scale=2.0))
    x, v = sampler.start(noise), noise + 1
    keep = engines.bundle.arrays["alphas_cumprod"][201]
    clean, found = sampler.predict(x, 1)
    push = 2.0 * (given.context - backend.decoder.uncond_context).mean((1, 2), keepdims=True)[..., None]
    np.testing.assert_allclose(found, np.broadcast_to(push, x.shape), atol=1e-6)
    np.testing.assert_allclose(clean, (x - (1 - keep) ** 0.5 * push) / keep**0.5, atol=1e-5)
    # The toy's gradient is step[1] * v, and step[1] is 0 where the noise itself is asked for.
    np.testing.assert_allclose(sampler.linearise(x, 1)[2](v), v / keep**0.5, rtol=1e-6)


def test_objectives_are_of_the_backends_own_kind(
    checkpoint: Checkpoint, small_models: Any, engines: EngineSet, rng: np.random.Generator
) -> None:
    target = rng.standard_normal((2, 6, 17, 32)).astype(np.float32)
    settings = AdamSettings(backprop_steps=2)
    given, noise = start_of(rng)
    kinds = {}
    backends: list[Any] = [on_torch(checkpoint, small_models), BundleBackend(engines)]
    for backend in backends:
        generator = backend.generator(given, noise, SHORT, backprop_steps=2)
        objective = backend.objective(generator, target, settings)
        loss, gradients, image = objective.value_and_gradient(generator.initial())
        assert (tuple(loss.shape), tuple(image.shape)) == ((2,), (2, 3, 32, 32))
        assert set(gradients) == {"latent", "context"}
        kinds[type(backend)] = type(objective)
    assert kinds == {TorchBackend: AutogradObjective, BundleBackend: EngineObjective}
    foreign = backends[0].generator(given, noise, SHORT)
    with pytest.raises(InputError, match="a DiffusionGenerator was given"):
        backends[1].objective(foreign, target, settings)


def test_the_structural_gradient_is_of_the_backends_own_kind(
    checkpoint: Checkpoint, small_models: Any, engines: EngineSet, rng: np.random.Generator
) -> None:
    target = rng.standard_normal((2, 6, 17, 32)).astype(np.float32)
    weights = StructuralWeights.of_settings(AdamSettings(), target, checkpoint.mask)
    latent = start_of(rng)[0].latent
    by_torch = on_torch(checkpoint, small_models).structural(torch.from_numpy(latent), target, weights)
    by_engines = BundleBackend(engines).structural(latent, target, weights)
    shapes = [(2,), (2, 4, 4, 4), (2, 3, 32, 32)]
    assert [tuple(array.shape) for array in by_torch] == [array.shape for array in by_engines] == shapes
    assert {type(array) for array in by_torch} == {torch.Tensor}
    assert {type(array) for array in by_engines} == {np.ndarray}
    objective = BundleBackend(engines).objective
    settings = AdamSettings(backprop_steps=0, params=("latent",))
    generator = BundleBackend(engines).generator(start_of(rng)[0], start_of(rng)[1], SHORT, backprop_steps=0)
    last = generator.latents(generator.initial())[-1]
    loss, gradients, image = objective(generator, target, settings).value_and_gradient(generator.initial())
    found = BundleBackend(engines).structural(last, target, weights)
    np.testing.assert_array_equal(found[0], loss)
    np.testing.assert_allclose(found[1] * generator.latent_scale, gradients["latent"], rtol=1e-6)
    np.testing.assert_array_equal(found[2], image)


def test_other_models_or_layers_than_the_decoders_are_refused(
    checkpoint: Checkpoint, small_world: Path, tmp_path: Path
) -> None:
    write = importlib.import_module("small_world").write_small_world
    with pytest.raises(InputError, match="made for other models"):
        on_torch(checkpoint, load_models(str(write(tmp_path / "other", seed=1)))).start()
    with pytest.raises(InputError, match="layer preset"):
        on_torch(checkpoint, load_models(str(small_world), preset="paper")).start()


@torch.no_grad()
def test_features_are_the_models_own(checkpoint: Checkpoint, small_models: Any, images: np.ndarray) -> None:
    backend = on_torch(checkpoint, small_models)
    structure, token = small_models.structure(torch.from_numpy(images), semantic=True)
    found = backend.features(images, semantic=True)
    np.testing.assert_allclose(found[0], structure.numpy(), atol=1e-6)
    assert found[1] is not None
    np.testing.assert_allclose(found[1], token.numpy(), atol=1e-6)
    assert backend.features(images, semantic=False)[1] is None
    embedding = backend.embedding(images)
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
    backend = BundleBackend(engines)
    structure, token = backend.features(images, semantic=True)
    assert given == sizes
    np.testing.assert_allclose(structure, whole["structure"], rtol=1e-6)
    assert token is not None
    np.testing.assert_allclose(token, whole["semantic"], rtol=1e-6)
    assert backend.features(images, semantic=False)[1] is None
    np.testing.assert_allclose(backend.embedding(images), whole["embedding"], rtol=1e-6)
