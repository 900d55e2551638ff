"""A stand-in for the models: a few smooth random layers in float64, with every attribute that stage 1 and 2 use.

And engines without any export: PyTorch's own networks behind the interface that a bundle's graphs have.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minddiffuser.export.graphs import NETWORK_GRAPHS
from minddiffuser.export.graphs.base import network_graph
from minddiffuser.runtime.backends.reference import TorchEngine
from minddiffuser.runtime.models.open import load_models

N, TOKENS, TEXT_WIDTH, LATENT = 3, 15, 8, (4, 4, 4)


class ToyModels:
    device = torch.device("cpu")
    steps_offset, set_alpha_to_one = 1, False
    latent_shape, context_shape, structure_shape, image_size = LATENT, (TOKENS, TEXT_WIDTH), (6, 5, 7), 8

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.dtype = dtype
        self.alphas_cumprod = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
        make = torch.Generator().manual_seed(7)

        def weight(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=make, dtype=torch.float64).to(dtype) / shape[-1] ** 0.5

        size = int(np.prod(LATENT))
        self._enter, self._attend, self._leave = weight(size, 32), weight(TEXT_WIDTH * TOKENS, 32), weight(32, size)
        self._paint = weight(size, 3 * 8 * 8)
        self._look = [weight(3 * 8 * 8, 5 * 7) for _ in range(6)]
        self._mean = weight(3 * 8 * 8, 9)
        self.calls: list[tuple[int, int]] = []  # (batch size, timestep) of every predict_noise

    def predict_noise(self, latent: Tensor, timestep: int, context: Tensor) -> Tensor:
        self.calls.append((len(latent), timestep))
        hidden = torch.tanh(latent.flatten(1) @ self._enter + context.flatten(1) @ self._attend + timestep / 1000)
        return (hidden @ self._leave + 0.5 * latent.flatten(1)).view_as(latent)

    def decode_latent(self, latent: Tensor) -> Tensor:
        image = torch.sigmoid(latent.flatten(1) @ self._paint).view(-1, 3, 8, 8)
        return image.to(torch.promote_types(self.dtype, torch.float32))

    def structure(self, image: Tensor, *, semantic: bool = False) -> tuple[Tensor, Tensor | None]:
        flat = image.flatten(1).to(self.dtype)
        layers = torch.stack([torch.tanh(flat @ look).view(-1, 5, 7) for look in self._look], dim=1)
        wide = torch.promote_types(self.dtype, torch.float32)
        return layers.to(wide), (flat @ self._mean).to(wide) if semantic else None


@pytest.fixture
def toy_models() -> ToyModels:
    return ToyModels()


@pytest.fixture
def toy_inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Arguments of DiffusionGenerator for three trials."""
    return {
        "latent": rng.standard_normal((N, *LATENT)).astype(np.float32),
        "context": rng.standard_normal((N, TOKENS, TEXT_WIDTH)).astype(np.float32),
        "uncond_context": rng.standard_normal((TOKENS, TEXT_WIDTH)).astype(np.float32),
        "noise": rng.standard_normal((N, *LATENT)).astype(np.float32),
    }


@pytest.fixture(scope="session")
def small_models(small_world: Path) -> Any:
    return load_models(str(small_world))


@pytest.fixture(scope="session")
def torch_engines() -> Callable[..., dict[str, TorchEngine]]:
    """Models -> an engine of every network graph; `semantic` is whether gradients know the semantic term."""

    def make(models: Any, *, semantic: bool = False) -> dict[str, TorchEngine]:
        graphs = [network_graph(name, models, semantic=semantic) for name in NETWORK_GRAPHS]
        return {graph.name: TorchEngine(graph.name, models, graph.inputs, graph.outputs) for graph in graphs}

    return make
