"""`structure_gradient`: VAE decoder, CLIP, the loss of eq. 5 and 6, and their backward pass in one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...runtime.models.models import Models
from ...runtime.refine.loss import semantic_loss, structural_loss
from ..onnx.network_graph import NetworkGraph
from .base import specs_of
from .scaling import unit_scale
from .vjp import vjp


def graph(models: Models, *, semantic: bool) -> NetworkGraph:
    """Loss, its gradient with respect to the latent, and the picture, trial by trial.

    `semantic` adds the inputs `semantic_target` and `semantic_weight`. Layer weights are per trial and layer; the
    loss is a mean over the kept dimensions (:func:`~minddiffuser.runtime.refine.loss.structural_loss`).
    """
    specs = specs_of(models, "structure_gradient", semantic=semantic)

    def features(latent: Tensor) -> tuple[Tensor, ...]:
        image = models.decode_latent(latent)
        structure, token = models.structure(image, semantic=semantic)
        return (structure, image) if token is None else (structure, token, image)

    return NetworkGraph(
        name="structure_gradient",
        inputs=specs.inputs,
        outputs=specs.outputs,
        forward=features,
        forward_inputs=("latent",),
        backward=_with_semantic if semantic else _structural,
    )


def _structural(features: Callable[..., Any]) -> Callable[..., Any]:
    def gradient(latent: Tensor, target: Tensor, mask: Tensor, layer_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (structure, image), pull_back = vjp(features, latent)
        loss, pull_loss = vjp(lambda s: structural_loss(s, target, mask, layer_weights), structure)
        (at_structure,) = pull_loss(torch.ones_like(loss))
        scale = unit_scale(at_structure)
        (back,) = pull_back(at_structure / _like(scale, at_structure), None)
        return loss, back * _like(scale, back), image

    return gradient


def _with_semantic(features: Callable[..., Any]) -> Callable[..., Any]:
    def gradient(
        latent: Tensor,
        target: Tensor,
        mask: Tensor,
        layer_weights: Tensor,
        semantic_target: Tensor,
        semantic_weight: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        (structure, token, image), pull_back = vjp(features, latent)

        def total(s: Tensor, t: Tensor) -> Tensor:
            loss: Tensor = structural_loss(s, target, mask, layer_weights)
            return loss + semantic_weight * semantic_loss(t, semantic_target)  # type: ignore[no-any-return]

        loss, pull_loss = vjp(total, structure, token)
        at_structure, at_token = pull_loss(torch.ones_like(loss))
        scale = torch.maximum(unit_scale(at_structure), unit_scale(at_token))
        (back,) = pull_back(at_structure / _like(scale, at_structure), at_token / _like(scale, at_token), None)
        return loss, back * _like(scale, back), image

    return gradient


def _like(scale: Tensor, array: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (array.ndim - 1))
