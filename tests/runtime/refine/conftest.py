"""What a refiner computes with, over any models: the calls of a backend and nothing else of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minddiffuser.runtime.backends.base import Start
from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.generators.engines import EngineGenerator
from minddiffuser.runtime.generators.noise import trial_noise
from minddiffuser.runtime.models.open import load_models
from minddiffuser.runtime.refine import autograd, engines
from minddiffuser.runtime.refine.base import Problem
from minddiffuser.runtime.sampling import Sampling

SEED = 5


@dataclass(kw_only=True)
class Computing:
    """PyTorch over `models`, or `graphs` of them by name, which take numpy arrays.

    `started` keeps what each generator was given: (start, noise).
    """

    models: Any
    uncond_context: np.ndarray
    graphs: Mapping[str, Any] | None = None
    started: list[tuple[Start, np.ndarray]] = field(default_factory=list)

    def generator(
        self, decoded: Start, noise: np.ndarray, sampling: Sampling | None = None, *, backprop_steps: int | None = None
    ) -> Any:
        self.started.append((decoded, noise))
        given = (decoded.latent, decoded.context, self.uncond_context, noise)
        how: dict[str, Any] = {"sampling": sampling, "backprop_steps": backprop_steps}
        if self.graphs is None:
            return DiffusionGenerator(self.models, *given, **how, checkpointing=False)
        return EngineGenerator(self.graphs, self.models, *given, **how)

    def structural(self, x0: Any, target: np.ndarray, weights: Any, semantic: Any = None) -> Any:
        if self.graphs is None:
            return autograd.structural(self.models, x0, target, weights, semantic)
        head = self.graphs["structure_gradient"]
        return engines.structural(head, x0, target, weights, semantic, largest_batch=None)


def make_problem(
    models: Any,
    trials: tuple[str, ...],
    sampling: Sampling,
    *,
    graphs: Mapping[str, Any] | None = None,
    rows_at_once: int = 100,
) -> Problem[Any]:
    """Stage 2 of random trials, each of which its id decides; targets are the structure of other latents' pictures."""

    def drawn(what: str, *shape: int) -> np.ndarray:
        rows = [np.random.default_rng([*map(ord, what + name)]).standard_normal(shape) for name in trials]
        return np.stack(rows).astype(np.float32)

    latent, context = drawn("latent", *models.latent_shape), drawn("context", *models.context_shape)
    uncond = np.random.default_rng(11).standard_normal(models.context_shape).astype(np.float32)
    backend = Computing(models=models, uncond_context=uncond, graphs=graphs)
    with torch.no_grad():
        others = torch.from_numpy(drawn("target", *models.latent_shape)).to(models.dtype)
        structure, token = models.structure(models.decode_latent(others), semantic=True)

    def start(rows: Any) -> Start:
        return Start(context=context[list(rows)], latent=latent[list(rows)])

    def noise(candidate: int) -> np.ndarray:
        return trial_noise(SEED, trials, models.latent_shape, candidate)

    generator = backend.generator(start(range(len(trials))), noise(0), sampling)
    backend.started.clear()
    return Problem(
        backend=backend,
        start=start,
        noise=noise,
        generator=generator,
        stage1=generator.stage1(),
        sampling=sampling,
        target=np.asarray(structure, np.float32),
        mask=np.random.default_rng(12).random(models.structure_shape) < 0.4,
        semantic=np.asarray(token, np.float32),
        rows_at_once=rows_at_once,
    )


@pytest.fixture(scope="session")
def exact(small_world: Path) -> Any:
    """Networks in float64."""
    return load_models(str(small_world), dtype="float64")


@pytest.fixture(scope="session")
def problem_of() -> Callable[..., Problem[Any]]:
    return make_problem
