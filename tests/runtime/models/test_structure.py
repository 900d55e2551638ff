from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.models.structure import PRESETS, shallow_features

HEADS, PATCH = 2, 8


def tower_by_hand(
    weights: dict[str, torch.Tensor], pixels: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """A ViT written from its equations: each block's c_proj output, each block's output, and the embedding."""
    w = {key.removeprefix("visual."): value for key, value in weights.items() if key.startswith("visual.")}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]
        )

    n, rows = len(pixels), pixels.shape[-1] // PATCH
    width = w["class_embedding"].numel()
    kernel = w["conv1.weight"].flatten(1)
    tokens = [w["class_embedding"].expand(n, -1)]
    for row in range(rows):
        for column in range(rows):
            patch = pixels[:, :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
            tokens.append(patch.flatten(1) @ kernel.T)
    x = norm(torch.stack(tokens, 1) + w["positional_embedding"], "ln_pre")
    added, outputs = [], []
    for block in range(12):
        name = f"transformer.resblocks.{block}"
        qkv = norm(x, f"{name}.ln_1") @ w[f"{name}.attn.in_proj_weight"].T + w[f"{name}.attn.in_proj_bias"]
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        weight = (q @ k.transpose(-1, -2) / (width // HEADS) ** 0.5).softmax(-1)
        mixed = (weight @ v).transpose(1, 2).flatten(2)
        x = x + mixed @ w[f"{name}.attn.out_proj.weight"].T + w[f"{name}.attn.out_proj.bias"]
        hidden = F.gelu(norm(x, f"{name}.ln_2") @ w[f"{name}.mlp.c_fc.weight"].T + w[f"{name}.mlp.c_fc.bias"])
        added.append(hidden @ w[f"{name}.mlp.c_proj.weight"].T + w[f"{name}.mlp.c_proj.bias"])
        x = x + added[-1]
        outputs.append(x)
    return added, outputs, norm(x[:, 0], "ln_post") @ w["proj"]


@pytest.fixture(scope="module")
def worlds(small_world: Path) -> dict[str, Models]:
    return {preset: load_models(small_world, preset=preset) for preset in PRESETS}


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("preset", "blocks"), [("reference", [1, 2, 3, 4, 5, 6]), ("paper", [2, 4, 6, 8, 10, 12])])
def test_features_are_the_mlp_outputs_computed_by_hand(
    preset: str, blocks: list[int], worlds: dict[str, Models], small_world: Path, images: torch.Tensor
) -> None:
    models = worlds[preset]
    mean, std = torch.tensor([0.5, 0.4, 0.6]), torch.tensor([0.25, 0.2, 0.3])
    pixels = (images - mean[:, None, None]) / std[:, None, None]
    added, outputs, embedding = tower_by_hand(load_file(small_world / "clip/open_clip_model.safetensors"), pixels)
    structure, semantic = models.structure(images, semantic=True)
    assert structure.shape == (2, 6, 17, 32)
    assert semantic is not None
    for layer, block in enumerate(blocks):
        torch.testing.assert_close(structure[:, layer], added[block - 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(semantic, outputs[10][:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(models.embedding(images), embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(models.structure(images)[0], structure, rtol=0, atol=0)
    assert models.structure(images)[1] is None


@pytest.mark.parametrize(
    ("preset", "semantic", "expected"),
    [("reference", False, 6), ("reference", True, 11), ("paper", False, 12), ("paper", True, 12)],
)
def test_the_tower_stops_after_the_last_block_needed(
    preset: str, semantic: bool, expected: int, worlds: dict[str, Models], images: torch.Tensor
) -> None:
    calls: list[int] = []
    blocks = worlds[preset].clip.transformer.resblocks
    handles = [
        block.register_forward_hook(lambda module, given, output, i=i: calls.append(i))
        for i, block in enumerate(blocks)
    ]
    try:
        worlds[preset].structure(images, semantic=semantic)
    finally:
        for handle in handles:
            handle.remove()
    assert calls == list(range(expected))


def test_no_hook_is_left_behind(worlds: dict[str, Models], images: torch.Tensor) -> None:
    visual = worlds["reference"].clip
    worlds["reference"].structure(images)
    assert not any(module._forward_hooks for module in visual.modules())
    with pytest.raises(RuntimeError):
        shallow_features(visual, torch.zeros(1, 5, 32, 32), (0, 1))  # five channels: the tower itself refuses
    assert not any(module._forward_hooks for module in visual.modules())


def test_gradient_to_the_image_is_that_of_finite_differences(small_world: Path) -> None:
    models = load_models(small_world, dtype="float64")
    rng = torch.Generator().manual_seed(4)
    image = torch.rand(2, 3, 40, 40, generator=rng, dtype=torch.float64)  # resized to 32 on the way
    direction = torch.randn(2, 3, 40, 40, generator=rng, dtype=torch.float64)
    weight = torch.randn(2, *models.structure_shape, generator=rng, dtype=torch.float64)

    def value(x: torch.Tensor) -> torch.Tensor:
        return (models.structure(x)[0] * weight).flatten(1).sum(1)

    leaf = image.clone().requires_grad_(True)
    value(leaf).sum().backward()
    assert leaf.grad is not None
    gradient = (leaf.grad * direction).flatten(1).sum(1)
    numeric = (value(image + 1e-5 * direction) - value(image - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close(gradient, numeric, rtol=1e-6, atol=1e-8)


def test_an_unknown_preset_names_the_choices(small_world: Path) -> None:
    with pytest.raises(InputError, match="paper, reference"):
        load_models(small_world, preset="shallow")
