"""`denoise`: the UNet, classifier-free guidance and the DDIM update in one graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...runtime.models.models import Models
from ..onnx.network_graph import NetworkGraph
from .base import specs_of


def graph(models: Models, *, semantic: bool) -> NetworkGraph:
    """The next latent from latent, step coefficients, context, uncond_context and guidance. `semantic` is not used."""
    specs = specs_of(models, "denoise", semantic=semantic)
    return NetworkGraph(
        name="denoise",
        inputs=specs.inputs,
        outputs=specs.outputs,
        forward=step_function(models),
        forward_inputs=tuple(specs.inputs),
    )


def step_function(models: Models) -> Callable[..., Tensor]:
    """One guided DDIM step as a function of tensors.

    `step` is (timestep, latent_scale, noise_scale) of :func:`~minddiffuser.runtime.generators.ddim.step_table`: the
    update is a sum of latent and noise with two coefficients that were computed in float64, the same for every backend.
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
