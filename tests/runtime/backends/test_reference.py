"""The reference engine against the networks' own methods and PyTorch's reverse mode."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.backends.reference import NETWORKS, TorchEngine
from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.generators.ddim import ddim_schedule, ddim_update
from minddiffuser.runtime.refine.loss import semantic_loss, structural_loss
from minddiffuser.runtime.sampling import Sampling

N = 2
Make = Callable[..., dict[str, TorchEngine]]


@pytest.fixture
def feeds(small_models: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One of every input, for two trials."""

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    structure = small_models.structure_shape
    return {
        "latent": drawn(N, *small_models.latent_shape),
        "step": np.array([201.0, 1.02, -0.05], np.float32),
        "context": drawn(N, *small_models.context_shape),
        "uncond_context": drawn(*small_models.context_shape),
        "guidance": np.array([3.0], np.float32),
        "image": rng.random((N, 3, 32, 32)).astype(np.float32),
        "target": drawn(N, *structure),
        "mask": (rng.random(structure) < 0.25).astype(np.float32),
        "layer_weights": rng.random((N, 6)).astype(np.float32),
        "semantic_target": drawn(N, 32),
        "semantic_weight": np.array([0.4], np.float32),
        "next_gradient": drawn(N, *small_models.latent_shape),
    }


def run(engine: TorchEngine, feeds: dict[str, Any]) -> dict[str, torch.Tensor]:
    found = engine.run({name: feeds[name] for name in engine.inputs})
    assert list(found) == list(engine.outputs)
    for name, spec in engine.outputs.items():
        assert tuple(found[name].shape) == (N, *spec.shape[1:])
        assert found[name].dtype == torch.float32
        assert not found[name].requires_grad
    return found


def torch_of(feeds: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in feeds.items()}


def test_every_network_graph_is_there(small_models: Any, torch_engines: Make) -> None:
    assert set(torch_engines(small_models)) == set(NETWORKS)


@torch.no_grad()
def test_a_denoising_step_is_guidance_and_the_ddim_update(
    small_models: Any, torch_engines: Make, feeds: dict[str, np.ndarray]
) -> None:
    """With the coefficients of a step of the real schedule, against the update written as in the paper."""
    schedule = ddim_schedule(small_models, Sampling(n_reverse=10))
    timestep, keep, keep_next = list(schedule)[3]
    scale = (keep_next / keep) ** 0.5
    feeds["step"] = np.array([timestep, scale, (1 - keep_next) ** 0.5 - scale * (1 - keep) ** 0.5], np.float32)
    given = torch_of(feeds)
    with_context = small_models.predict_noise(given["latent"], timestep, given["context"])
    without = small_models.predict_noise(given["latent"], timestep, given["uncond_context"].expand_as(given["context"]))
    noise = without + 3.0 * (with_context - without)
    expected = ddim_update(given["latent"], noise, keep, keep_next)
    found = run(torch_engines(small_models)["denoise"], feeds)["next_latent"]
    assert (found - given["latent"]).abs().max() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_decoder_and_clip_are_the_models_own(
    small_models: Any, torch_engines: Make, feeds: dict[str, np.ndarray]
) -> None:
    engines, given = torch_engines(small_models), torch_of(feeds)
    image = run(engines["vae_decode"], feeds)["image"]
    torch.testing.assert_close(image, small_models.decode_latent(given["latent"]), atol=1e-6, rtol=0)
    found = run(engines["clip_structure"], feeds)
    structure, token = small_models.structure(given["image"], semantic=True)
    torch.testing.assert_close(found["structure"], structure, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["semantic"], token, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["embedding"], small_models.embedding(given["image"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("semantic", [False, True])
def test_the_gradient_of_the_loss_is_that_of_autograd(
    small_models: Any, torch_engines: Make, feeds: dict[str, np.ndarray], semantic: bool
) -> None:
    given = torch_of(feeds)
    latent = given["latent"].requires_grad_()
    image = small_models.decode_latent(latent)
    structure, token = small_models.structure(image, semantic=True)
    loss = structural_loss(structure, given["target"], given["mask"], given["layer_weights"])
    if semantic:
        loss = loss + 0.4 * semantic_loss(token, given["semantic_target"])
    (gradient,) = torch.autograd.grad(loss.sum(), latent)
    feeds["latent"] = latent.detach().numpy()
    found = run(torch_engines(small_models, semantic=semantic)["structure_gradient"], feeds)
    torch.testing.assert_close(found["loss"], loss.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found["image"], image.detach(), atol=1e-6, rtol=0)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(found["latent_gradient"], gradient, rtol=0, atol=1e-5 * gradient.abs().max().item())


def test_a_step_back_is_that_of_autograd(small_models: Any, torch_engines: Make, feeds: dict[str, np.ndarray]) -> None:
    """The context's gradient is through guidance alone; unconditional context and latent are kept apart."""
    engines = torch_engines(small_models)
    given = torch_of(feeds)
    leaves = [given["latent"].requires_grad_(), given["context"].requires_grad_()]
    both = [
        small_models.predict_noise(leaves[0], 201, context)
        for context in (given["uncond_context"].expand(N, -1, -1), leaves[1])
    ]
    out = 1.02 * leaves[0] - 0.05 * (both[0] + 3.0 * (both[1] - both[0]))
    expected = torch.autograd.grad((out * given["next_gradient"]).sum(), leaves)
    feeds |= {"latent": leaves[0].detach().numpy(), "context": leaves[1].detach().numpy()}
    found = run(engines["denoise_gradient"], feeds)
    for name, gradient in zip(("latent_gradient", "context_gradient"), expected, strict=True):
        largest = gradient.abs().max().item()
        assert largest > 0
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5 * largest)


def test_arrays_of_both_libraries_are_inputs_and_nothing_is_written_to(
    small_models: Any, torch_engines: Make, feeds: dict[str, np.ndarray]
) -> None:
    engine = torch_engines(small_models)["denoise_gradient"]
    given = {name: feeds[name].copy() for name in engine.inputs}
    before = {name: array.copy() for name, array in given.items()}
    by_numpy = run(engine, given)
    by_torch = run(engine, torch_of(given))
    for name, found in by_numpy.items():
        torch.testing.assert_close(found, by_torch[name], rtol=0, atol=0)
    for name, array in given.items():
        assert (array == before[name]).all()


def test_gradients_come_under_no_grad_too(small_models: Any, torch_engines: Make, feeds: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        found = run(torch_engines(small_models)["structure_gradient"], feeds)
    assert found["latent_gradient"].abs().max() > 0


def test_what_does_not_fit_is_refused(small_models: Any, torch_engines: Make, feeds: dict[str, np.ndarray]) -> None:
    with torch_engines(small_models)["vae_decode"] as engine:
        with pytest.raises(ShapeError, match="'latent' of the engine 'vae_decode' is float64"):
            engine.run({"latent": feeds["latent"].astype(float)})
        with pytest.raises(InputError, match="lacks latent"):
            engine.run({})
        assert engine.device == "cpu"
        assert engine.description.startswith("PyTorch ")
        assert engine.description.endswith("cpu, float32")
