"""Floating-point operations of the networks, counted by shapes, and the rate that the machine reaches at its best.

A multiply-accumulate is two. Convolutions, linear layers and attention count; what is elementwise does not. Counting
runs on tensors without data: a full-size UNet takes a fraction of a second and no memory.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minddiffuser.runtime.backends.reference import guided_step
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.refine.loss import structural_loss


def flops_of(work: Callable[[], Any]) -> int:
    """Operations of the products in `work`, backward passes included."""
    # Attention as two products: a fused kernel would have to be known to the counter on every device.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return int(counter.get_total_flops())


@dataclass(frozen=True)
class Counts:
    """Operations for one trial. Gradients: the forward pass once and its derivative once, however it is computed.

    Attributes
    ----------
    step, decode : int
        One guided denoising step (the UNet twice), and the VAE's decoder.
    step_gradient, head_gradient : int
        A step with its derivative; decoder, CLIP and loss with theirs.
    """

    step: int
    decode: int
    step_gradient: int
    head_gradient: int

    def picture(self, n_steps: int) -> int:
        return n_steps * self.step + self.decode

    def iteration(self, n_steps: int) -> int:
        """Stage 2 through the last `n_steps` steps."""
        return n_steps * self.step_gradient + self.head_gradient


def count(models: Models) -> Counts:
    """Count both stages of these models, on copies without data."""
    bare = without_data(models)
    given = {
        "latent": torch.empty(1, *bare.latent_shape, device="meta"),
        "step": torch.empty(3, device="meta"),
        "context": torch.empty(1, *bare.context_shape, device="meta"),
        "uncond_context": torch.empty(bare.context_shape, device="meta"),
        "guidance": torch.empty(1, device="meta"),
    }
    with torch.no_grad():
        step = flops_of(lambda: guided_step(bare, given))
        decode = flops_of(lambda: bare.decode_latent(given["latent"]))
    return Counts(step, decode, flops_of(lambda: _step(bare, given)), flops_of(lambda: _head(bare, given["latent"])))


def without_data(models: Models) -> Models:
    """The same networks as shapes only."""
    parts = {name: copy.deepcopy(getattr(models, name)).to("meta") for name in ("unet", "vae", "clip")}
    return replace(models, **parts, device=torch.device("meta"))


def _step(models: Models, given: dict[str, Tensor]) -> None:
    leaves = {name: given[name].detach().requires_grad_() for name in ("latent", "context")}
    out = guided_step(models, {**given, **leaves})
    torch.autograd.grad(out, list(leaves.values()), torch.empty_like(out))


def _head(models: Models, latent: Tensor) -> None:
    latent = latent.detach().requires_grad_()
    structure, _ = models.structure(models.decode_latent(latent))
    loss = structural_loss(structure, structure.detach(), torch.empty_like(structure[0]), torch.empty(6, device="meta"))
    torch.autograd.grad(loss.sum(), latent)


def peak_flops(
    size: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    *,
    tries: int = 5,
    wait: Callable[[], Any] = lambda: None,
) -> float:
    """Operations per second of a (size, size) by (size, size) product, the best of `tries`."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    best = float("inf")
    for _ in range(tries):
        wait()
        started = time.perf_counter()
        torch.mm(a, b)
        wait()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
