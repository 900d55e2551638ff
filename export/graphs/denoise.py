"""`denoise`: the UNet, classifier-free guidance and the DDIM update in one graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...runtime.engines.base import TensorSpec
from .base import BATCH, NetworkGraph, float32

if TYPE_CHECKING:
    from ...runtime.models.models import Models


def graph(models: Models, *, semantic: bool) -> NetworkGraph:
    """The next latent from latent, step coefficients, context, uncond_context and guidance. `semantic` is not used."""
    inputs = step_inputs(models)
    return NetworkGraph(
        name="denoise",
        inputs=inputs,
        outputs={"next_latent": inputs["latent"]},
        forward=step_function(models),
        forward_inputs=tuple(inputs),
    )


def step_inputs(models: Models) -> dict[str, TensorSpec]:
    n_tokens, width = models.context_shape
    return {
        "latent": float32(BATCH, *models.latent_shape),
        "step": float32(3),
        "context": float32(BATCH, n_tokens, width),
        "uncond_context": float32(n_tokens, width),
        "guidance": float32(1),
    }


def step_function(models: Models):  # type: ignore[no-untyped-def]
    """One guided DDIM step as a function of tensors.

    `step` is (timestep, latent_scale, noise_scale) of :func:`~minddiffuser.runtime.schedule.step_table`: the update is
    a sum of latent and noise with two coefficients that were computed in float64, the same for every backend.
    """

    def step(latent: Tensor, step: Tensor, context: Tensor, uncond_context: Tensor, guidance: Tensor) -> Tensor:
        n = latent.shape[0]
        both = torch.cat([uncond_context.unsqueeze(0).expand(n, -1, -1), context])
        noise = models.predict_noise(torch.cat([latent, latent]), step[0], both)
        # A weighted sum over the two halves: the derivative of cutting them apart would be a scatter.
        halves = torch.cat([1 - guidance, guidance]).reshape(2, 1, 1, 1, 1)
        guided = (halves * noise.reshape(2, n, *noise.shape[1:])).sum(0)
        return step[1] * latent + step[2] * guided

    return step
