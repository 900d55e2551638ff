"""The engine over PyTorch's own networks: the reference that all others are verified against, and a backend itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..bundle.graph_specs import Specs
from ..closing import Closing
from ..engines.base import check_feeds
from ..models.models import Models
from ..refine.loss import semantic_loss, structural_loss

Named = dict[str, Tensor]


class TorchEngine(Closing):
    """One graph of a bundle, computed by the networks that it was exported from; gradients by autograd.

    Inputs may be numpy arrays or tensors; outputs are tensors on the models' device.
    """

    def __init__(self, name: str, models: Models, inputs: Specs, outputs: Specs) -> None:
        self.name = name
        self.inputs: Specs = dict(inputs)
        self.outputs: Specs = dict(outputs)
        self._models, self._function = models, _FUNCTIONS[name]

    @property
    def device(self) -> str:
        return str(self._models.device)

    @property
    def description(self) -> str:
        return f"PyTorch {torch.__version__}, {self._models.device}, {str(self._models.dtype).removeprefix('torch.')}"

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`..engines.base.Engine.run`."""
        check_feeds(self.name, self.inputs, feeds)
        return self._function(self._models, {name: self.place(array) for name, array in feeds.items()})

    def place(self, array: Any) -> Tensor:
        """See :meth:`..engines.base.Engine.place`."""
        return torch.as_tensor(array).to(self._models.device, self._models.precise)

    def close(self) -> None:
        """Nothing to free: the models are the caller's."""


def guided_step(models: Models, given: Mapping[str, Tensor]) -> Tensor:
    """One guided DDIM step: what `denoise` computes."""
    latent, step, context = given["latent"], given["step"], given["context"]
    both = torch.cat([given["uncond_context"].expand_as(context), context])
    without, with_context = models.predict_noise(torch.cat([latent, latent]), step[0], both).chunk(2)
    noise = without + given["guidance"] * (with_context - without)
    return step[1] * latent + step[2] * noise


def loss_of(models: Models, given: Mapping[str, Tensor], image: Tensor) -> Tensor:
    """Of images (n, 3, H, H): the loss of each that `structure_gradient` goes down, (n,)."""
    structure, token = models.structure(image, semantic="semantic_target" in given)
    loss: Tensor = structural_loss(structure, given["target"], given["mask"], given["layer_weights"])
    if token is not None:
        loss = loss + given["semantic_weight"] * semantic_loss(token, given["semantic_target"])
    return loss


def _denoise(models: Models, given: Named) -> Named:
    with torch.no_grad():
        return {"next_latent": guided_step(models, given)}


def _vae_decode(models: Models, given: Named) -> Named:
    with torch.no_grad():
        return {"image": models.decode_latent(given["latent"])}


def _clip_structure(models: Models, given: Named) -> Named:
    with torch.no_grad():
        return dict(zip(("structure", "semantic", "embedding"), models.features(given["image"]), strict=True))


def _structure_gradient(models: Models, given: Named) -> Named:
    latent = given["latent"].detach().requires_grad_()
    with torch.enable_grad():
        image = models.decode_latent(latent)
        loss = loss_of(models, given, image)
        (gradient,) = torch.autograd.grad(loss.sum(), latent)
    return {"loss": loss.detach(), "latent_gradient": gradient, "image": image.detach()}


def _denoise_gradient(models: Models, given: Named) -> Named:
    leaves = {name: given[name].detach().requires_grad_() for name in ("latent", "context")}
    with torch.enable_grad():
        out = guided_step(models, {**given, **leaves})
        at_latent, at_context = torch.autograd.grad(out, list(leaves.values()), given["next_gradient"])
    return {"latent_gradient": at_latent, "context_gradient": at_context}


_FUNCTIONS: dict[str, Callable[[Models, Named], Named]] = {
    "denoise": _denoise,
    "vae_decode": _vae_decode,
    "clip_structure": _clip_structure,
    "structure_gradient": _structure_gradient,
    "denoise_gradient": _denoise_gradient,
}
NETWORKS = tuple(_FUNCTIONS)
"""Graphs that PyTorch can compute."""
