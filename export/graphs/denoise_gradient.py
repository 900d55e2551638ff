"""`denoise_gradient`: from the loss's gradient at the next latent to those at latent and context, one step back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .base import BATCH, NetworkGraph, float32
from .denoise import step_function, step_inputs
from .reverse import vjp
from .scaling import unit_scale

if TYPE_CHECKING:
    from ...runtime.models.models import Models


def graph(models: Models, *, semantic: bool) -> NetworkGraph:
    """One step of reverse mode. The forward pass is computed again inside: nothing is kept between steps."""
    inputs = step_inputs(models)
    return NetworkGraph(
        name="denoise_gradient",
        inputs={**inputs, "next_gradient": float32(BATCH, *models.latent_shape)},
        outputs={"latent_gradient": inputs["latent"], "context_gradient": inputs["context"]},
        forward=step_function(models),
        forward_inputs=tuple(inputs),
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
