"""Loss and gradient of clean latents: by finite differences, by the stage 2 that uses them, and on engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.refine import autograd, engines
from minddiffuser.runtime.refine.settings import AdamSettings
from minddiffuser.runtime.refine.weights import StructuralWeights

N = 5
Array = np.ndarray


def given(models: Any, rng: np.random.Generator) -> tuple[Array, Array, StructuralWeights]:
    """Latents, a target with NaN where nothing counts, and weights that are no mask."""
    latent = rng.standard_normal((N, *models.latent_shape)).astype(np.float32)
    shape = models.structure_shape
    dimensions = rng.uniform(0.5, 2, shape) * (rng.random(shape) < 0.3)
    target = np.where(dimensions > 0, rng.standard_normal((N, *shape)), np.nan).astype(np.float32)
    layers = rng.uniform(0.1, 1, (N, shape[0]))
    return latent, target, StructuralWeights(dimensions=dimensions, layers=layers)  # type: ignore[arg-type]


def test_of_torch_against_the_formula_and_finite_differences(small_world: Path, rng: np.random.Generator) -> None:
    models = load_models(small_world, dtype="float64")
    latent, target, weights = given(models, rng)
    loss, gradient, image = autograd.structural(models, latent, target, weights)
    with torch.no_grad():
        torch.testing.assert_close(image, models.decode_latent(torch.from_numpy(latent).double()), rtol=0, atol=1e-12)
        structure = models.structure(image)[0].numpy()
    m, w = weights.dimensions.astype(np.float64), weights.layers.astype(np.float64)
    for trial in range(N):
        terms = [
            w[trial, layer]
            * ((m[layer] * (structure[trial, layer] - target[trial, layer]))[m[layer] > 0] ** 2).sum()
            / m[layer].sum()
            for layer in range(len(m))
        ]
        assert loss[trial].item() == pytest.approx(sum(terms), rel=1e-9)
    for trial in (0, N - 1):
        direction = rng.standard_normal(latent.shape[1:])
        ends = []
        for sign in (1, -1):
            moved = latent.astype(np.float64)
            moved[trial] += sign * 1e-5 * direction
            ends.append(autograd.structural(models, moved, target, weights)[0][trial].item())
        along = (gradient[trial].numpy() * direction).sum()
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(along, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("semantic", [False, True])
@pytest.mark.parametrize("largest_batch", [None, 2])
def test_engines_give_what_torch_does(
    small_models: Any,
    torch_engines: Callable[..., dict[str, Any]],
    rng: np.random.Generator,
    semantic: bool,
    largest_batch: int | None,
) -> None:
    latent, target, weights = given(small_models, rng)
    head = torch_engines(small_models, semantic=semantic)["structure_gradient"]
    found = engines.structural(head, latent, target, weights, largest_batch=largest_batch)
    expected = autograd.structural(small_models, torch.from_numpy(latent), target, weights)
    for ours, theirs in zip(found, expected, strict=True):
        assert type(ours) is np.ndarray
        close(ours, theirs.numpy())


def test_each_row_is_its_own(small_models: Any, rng: np.random.Generator) -> None:
    latent, target, weights = given(small_models, rng)
    whole = autograd.structural(small_models, latent, target, weights)
    for trial in range(N):
        rows = slice(trial, trial + 1)
        alone = autograd.structural(small_models, latent[rows], target[rows], weights.rows(rows))
        for part, array in zip(alone, whole, strict=True):
            close(part.numpy(), array[rows].numpy())


def close(found: Array, expected: Array) -> None:
    """Equal up to float32 sums taken in another order, relative to each row's own norm."""
    error = np.linalg.norm((found - expected).reshape(len(found), -1), axis=1)
    assert (error / np.linalg.norm(expected.reshape(len(found), -1), axis=1)).max() < 1e-4


@pytest.mark.parametrize("loss_mean", ["kept", "all"])
def test_settings_weigh_a_mask_as_stage_2_does(rng: np.random.Generator, loss_mean: str) -> None:
    mask = rng.random((6, 4, 3)) < 0.4
    mask[2] = False  # of this layer nothing is kept
    target = rng.standard_normal((2, 6, 4, 3)).astype(np.float32)
    settings = AdamSettings(layer_weights=(3.0, 2.0, 1.0, 1.0, 0.5, 0.0), loss_mean=loss_mean)
    weights = StructuralWeights.of_settings(settings, target, mask)
    squares = ((weights.dimensions * target) ** 2).sum((-2, -1)) / weights.dimensions.sum((-2, -1)).clip(1)
    by_hand = [
        sum(
            weight * (row[layer][mask[layer]] ** 2).sum() / (12 if loss_mean == "all" else max(mask[layer].sum(), 1))
            for layer, weight in enumerate(settings.layer_weights)
        )
        for row in target
    ]
    np.testing.assert_allclose((squares * weights.layers).sum(-1), by_hand, rtol=1e-5)


GOOD = {"dimensions": np.ones((6, 4, 3)), "layers": np.ones((2, 6))}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"dimensions": np.ones((4, 3))}, ShapeError, r"dimensions have shape \(4, 3\): give 3 axes"),
        ({"layers": np.ones(6)}, ShapeError, r"layers have shape \(6,\): give 2 axes"),
        ({"layers": np.ones((2, 5))}, ShapeError, "of 5 layers and of dimensions of 6"),
        ({"dimensions": -np.ones((6, 4, 3))}, InputError, "dimensions hold a negative"),
        ({"layers": np.full((2, 6), np.nan)}, InputError, "layers hold a negative or no finite"),
        ({"dimensions": np.zeros((6, 4, 3))}, InputError, "no structure dimension has a weight above 0"),
    ],
)
def test_weights_that_cannot_be_are_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        StructuralWeights(**{**GOOD, **changes})


def test_targets_that_do_not_fit_are_refused(small_models: Any, rng: np.random.Generator) -> None:
    latent, target, weights = given(small_models, rng)
    with pytest.raises(ShapeError, match="give one row per trial"):
        autograd.structural(small_models, latent, target[:2], weights)
    with pytest.raises(ShapeError, match="2 latents and 5 targets were given"):
        autograd.structural(small_models, latent[:2], target, weights)
    target[3, weights.dimensions > 0] = np.inf
    with pytest.raises(InputError, match=r"target of row \[3\] is not finite"):
        autograd.structural(small_models, latent, target, weights)
