"""Floating-point operations of both stages, and the rate that the machine reaches at its best.

:mod:`minddiffuser.runtime.backends.flops` counts them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from minddiffuser.runtime.backends.flops import autograd_costs
from minddiffuser.runtime.models.models import Models


@dataclass(frozen=True)
class Counts:
    """Operations for one trial. Gradients: the forward pass once and its derivative once, however it is computed.

    Attributes
    ----------
    step, decode : int
        One guided denoising step (the UNet twice), and the VAE's decoder.
    step_gradient, head_gradient : int
        A step with its derivative; decoder, CLIP and loss with theirs.
    step_back : int
        The derivative of a step with respect to the latent alone.
    """

    step: int
    decode: int
    step_gradient: int
    head_gradient: int
    step_back: int

    def picture(self, n_steps: int) -> int:
        return n_steps * self.step + self.decode

    def iteration(self, n_steps: int) -> int:
        """Stage 2 through the last `n_steps` steps."""
        return n_steps * self.step_gradient + self.head_gradient

    def guided(self, n_steps: int, n_guided: int) -> int:
        """A pass of `n_steps` steps, guided in the first `n_guided`, and the loss of its picture."""
        return n_steps * self.step + n_guided * (self.step_back + self.head_gradient) + self.head_gradient


def count(models: Models) -> Counts:
    """Count both stages of these models."""
    costs = autograd_costs(models)
    step, back = costs.predict, costs.back_with_context
    counted = (step, costs.decode, step + back, costs.structural, costs.back_only)
    return Counts(*(round(cost * costs.reference_flops) for cost in counted))


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
