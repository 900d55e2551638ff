"""Reverse mode as a function: the value, and a way back from its slopes to those of its inputs."""

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
    pull_back : function of one slope per tensor of `value`, None where it is zero; gives one slope per input
    """
    leaves = [array.detach().requires_grad_() for array in inputs]
    with torch.enable_grad():
        value = function(*leaves)
    values = value if isinstance(value, tuple) else (value,)

    def pull_back(*slopes: Tensor | None) -> tuple[Tensor, ...]:
        given = [(v, slope) for v, slope in zip(values, slopes, strict=True) if slope is not None]
        return torch.autograd.grad([v for v, _ in given], leaves, [slope for _, slope in given])

    detached = tuple(v.detach() for v in values)
    return detached if isinstance(value, tuple) else detached[0], pull_back
