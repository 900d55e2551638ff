"""Floating-point operations of networks in PyTorch, counted by shapes: no data is made, and none is copied."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..models.models import Models
from ..refine.costs import Costs
from ..refine.loss import semantic_loss, structural_loss
from .reference import guided_step


def flops_of(work: Callable[[], Any]) -> int:
    """Operations of the products in `work`, backward passes included; a multiply-accumulate is two."""
    # Attention as two products: a fused kernel would have to be known to the counter on every device.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return int(counter.get_total_flops())


def without_data(models: Models) -> Models:
    """The same networks as shapes only, on the device "meta"; takes no memory."""
    parts = {name: _shapes_of(getattr(models, name)) for name in ("unet", "vae", "clip")}
    return replace(models, **parts, device=torch.device("meta"))


def autograd_costs(models: Models) -> Costs:
    """Costs of these networks with gradients by autograd, which takes a fraction of a second."""
    bare = without_data(models)
    latent = torch.empty(1, *bare.latent_shape, device="meta")
    with torch.no_grad():
        context = torch.empty(1, *bare.context_shape, device="meta")
        unit = flops_of(lambda: bare.predict_noise(latent, torch.empty((), device="meta"), context))
        predict = flops_of(lambda: guided_step(bare, _step_inputs(bare)))
        decode = flops_of(lambda: bare.decode_latent(latent))
        structural_forward = flops_of(lambda: _structural(bare, latent))
    pull_back = flops_of(lambda: _step_with_gradient(bare, ("latent",)))
    both = flops_of(lambda: _step_with_gradient(bare, ("latent", "context")))
    return Costs(
        predict=predict / unit,
        pull_back=pull_back / unit,
        back_only=(pull_back - predict) / unit,
        back_with_context=(both - predict) / unit,
        decode=decode / unit,
        structural=flops_of(lambda: _head_with_gradient(bare, semantic=False)) / unit,
        with_semantic=flops_of(lambda: _head_with_gradient(bare, semantic=True)) / unit,
        structural_forward=structural_forward / unit,
        reference_flops=unit,
        engines=False,
    )


def _step_inputs(bare: Models) -> dict[str, Tensor]:
    """What :func:`.reference.guided_step` takes for one trial, as shapes."""
    shapes = {
        "latent": (1, *bare.latent_shape),
        "step": (3,),
        "context": (1, *bare.context_shape),
        "uncond_context": bare.context_shape,
        "guidance": (1,),
    }
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _step_with_gradient(bare: Models, at: tuple[str, ...]) -> None:
    """A guided step, and its vector-Jacobian product at some of its inputs."""
    given = _step_inputs(bare)
    for name in at:
        given[name].requires_grad_()
    out = guided_step(bare, given)
    torch.autograd.grad(out, [given[name] for name in at], torch.empty_like(out))


def _head_with_gradient(bare: Models, *, semantic: bool) -> None:
    """Decoder, CLIP and loss, and the gradient at the latent."""
    latent = torch.empty(1, *bare.latent_shape, device="meta", requires_grad=True)
    torch.autograd.grad(_structural(bare, latent, semantic=semantic).sum(), latent)


def _structural(bare: Models, latent: Tensor, *, semantic: bool = False) -> Tensor:
    structure, token = bare.structure(bare.decode_latent(latent), semantic=semantic)
    layers = torch.empty(structure.shape[1], device="meta")
    loss: Tensor = structural_loss(structure, structure.detach(), torch.empty_like(structure[0]), layers)
    return loss if token is None else loss + semantic_loss(token, token.detach())


def _shapes_of(module: Any) -> Any:
    """A copy whose weights have shapes and no data: a copy that takes them for copied already."""
    known: dict[int, Any] = {}
    for weight in module.parameters():
        known[id(weight)] = torch.nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
    for buffer in module.buffers():
        known[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, known)
