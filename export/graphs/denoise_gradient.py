"""`denoise_gradient`: from the loss's gradient at the next latent to those at latent and context, one step back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...runtime.models.models import Models
from ..onnx.network_graph import NetworkGraph
from .base import specs_of
from .denoise import step_function
from .scaling import unit_scale
from .vjp import vjp


def graph(models: Models, *, semantic: bool) -> NetworkGraph:
    """One step of reverse mode. The forward pass is computed again inside: nothing is kept between steps."""
    specs = specs_of(models, "denoise_gradient", semantic=semantic)
    return NetworkGraph(
        name="denoise_gradient",
        inputs=specs.inputs,
        outputs=specs.outputs,
        forward=step_function(models),
        forward_inputs=tuple(specs_of(models, "denoise", semantic=semantic).inputs),
        backward=_backward,
    )


def _backward(step_once: Callable[..., Any]) -> Callable[..., Any]:
    def gradient(
        latent: Tensor, step: Tensor, context: Tensor, uncond_context: Tensor, guidance: Tensor, next_gradient: Tensor
    ) -> tuple[Tensor, Tensor]:
        _, pull_back = vjp(lambda z, c: step_once(z, step, c, uncond_context, guidance), latent, context)
        scale = unit_scale(next_gradient)
        at_latent, at_context = pull_back(next_gradient / scale.reshape(-1, 1, 1, 1))
        return at_latent * scale.reshape(-1, 1, 1, 1), at_context * scale.reshape(-1, 1, 1)

    return gradient
