"""Seconds of each call of both stages by autograd, as costs: in units of one UNet forward pass of the same run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timing import interleaved, median_ms

from minddiffuser.runtime.generators.diffusion import DiffusionGenerator
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.refine.autograd import structural
from minddiffuser.runtime.refine.costs import Costs
from minddiffuser.runtime.refine.settings import GuidedSettings
from minddiffuser.runtime.refine.weights import StructuralWeights
from minddiffuser.runtime.sampling import Sampling

K = 0  # the first step; every other one costs the same


def timed_costs(models: Models, flops: Costs, *, repeats: int) -> Costs:
    """Time one call of each kind for one trial, in turn.

    Parameters
    ----------
    models : Models
        With data.
    flops : Costs
        Counted costs of the same networks. Two entries come from there: the unit's operations, and how much more than
        `back_only` the way back to the context too is, which was not timed.
    repeats : int
        Of which the median is taken, after two that are not timed.
    """
    work = _calls(models)
    seconds = {name: median_ms(taken) / 1e3 for name, taken in interleaved(work, repeats).items()}
    unit = seconds["predict"] / 2
    calls = {name: taken / unit for name, taken in seconds.items()}
    back_only = calls["pull_back"] - calls["predict"]
    return Costs(
        **calls,
        back_only=back_only,
        back_with_context=back_only * flops.back_with_context / flops.back_only,
        reference_flops=flops.reference_flops,
        engines=False,
    )


def _calls(models: Models) -> dict[str, Callable[[], Any]]:
    """The calls by the names of :class:`Costs`; `pull_back` with the forward pass."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    latent, context, noise = (
        drawn(1, *models.latent_shape),
        drawn(1, *models.context_shape),
        drawn(1, *models.latent_shape),
    )
    uncond = drawn(*models.context_shape)
    sampler = DiffusionGenerator(models, latent, context, uncond, noise, sampling=Sampling(), checkpointing=False)
    x = sampler.start(noise)
    clean, _ = sampler.predict(x, K)
    with torch.no_grad():
        structure, token = models.structure(sampler.decode(clean), semantic=True)
    target, feature = structure.numpy() + 1, token.numpy() + 1
    weights = StructuralWeights.of_settings(GuidedSettings(), target, np.ones(target.shape[1:], bool))

    def forward() -> None:
        with torch.no_grad():
            models.structure(models.decode_latent(clean))

    return {
        "predict": lambda: sampler.predict(x, K),
        "pull_back": lambda: sampler.linearise(x, K)[2](clean),
        "decode": lambda: sampler.decode(clean),
        "structural": lambda: structural(models, clean, target, weights),
        "with_semantic": lambda: structural(models, clean, target, weights, (feature, 0.5)),
        "structural_forward": forward,
    }
