"""Reverse mode as a function: the value, and a function that pulls gradients back to its inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def vjp(function: Callable[..., Any], *inputs: Tensor) -> tuple[Any, Callable[..., tuple[Tensor, ...]]]:
    """What `torch.func.vjp` gives, by autograd itself.

    A trace through this sees the backward operators whole, so that they can be replaced
    (:func:`~minddiffuser.export.onnx.decompositions.gradient_decompositions`); torch.func breaks them down before.

    Returns
    -------
    value : tensor or tuple of tensors
    pull_back : function of one gradient per tensor of `value`, None where it is zero; gives one gradient per input
    """
    leaves = [array.detach().requires_grad_() for array in inputs]
    with torch.enable_grad():
        value = function(*leaves)
    values = value if isinstance(value, tuple) else (value,)

    def pull_back(*gradients: Tensor | None) -> tuple[Tensor, ...]:
        given = [(v, gradient) for v, gradient in zip(values, gradients, strict=True) if gradient is not None]
        return torch.autograd.grad([v for v, _ in given], leaves, [gradient for _, gradient in given])

    detached = tuple(v.detach() for v in values)
    return detached if isinstance(value, tuple) else detached[0], pull_back
