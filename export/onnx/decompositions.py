"""Operators that a traced graph is broken down to: those that ONNX, its runtimes and TensorRT have, and few."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


def forward_decompositions() -> dict[Any, Callable[..., Any]]:
    """What a forward graph is broken down to: only what has to be.

    Normalisation layers stay whole: they become LayerNormalization and GroupNormalization, which runtimes have kernels
    for. PyTorch's converter to ONNX has no operator for `1 - x`.
    """
    return {aten._safe_softmax.default: _softmax, aten.rsub.Scalar: _from_number}


def gradient_decompositions() -> dict[Any, Callable[..., Any]]:
    """PyTorch's own, and ours for what would have no operator in ONNX, none in TensorRT, or too many parts.

    PyTorch breaks the backward pass of a normalisation down to sums that share nothing with the forward pass, and
    leaves a LayerNormalization with outputs that TensorRT's parser refuses. Ours contain the same expressions in both
    directions, which are merged afterwards: a fifth fewer nodes.
    """
    return {
        **torch.export.default_decompositions(),
        aten._safe_softmax.default: _softmax,
        aten.native_group_norm.default: _group_norm,
        aten.native_group_norm_backward.default: _group_norm_backward,
        aten.native_layer_norm.default: _layer_norm,
        aten.native_layer_norm_backward.default: _layer_norm_backward,
        aten.silu.default: _silu,
        aten.silu_backward.default: _silu_backward,
        aten.pow.Tensor_Scalar: _power,
        aten.convolution_backward.default: _convolution_backward,
        aten.empty_permuted.default: _empty_permuted,
        aten.copy.default: _copy,
        aten.slice_backward.default: _slice_backward,
        aten.select_backward.default: _select_backward,
    }


def settle(graph: torch.fx.Graph) -> None:
    """Replace, in place, what a traced gradient still holds without an operator in PyTorch's converter to ONNX.

    Afterwards nothing is left to be broken down, which the converter would do by tracing the whole graph once more.
    """
    for node in list(graph.nodes):
        if node.target is aten.squeeze.dims:
            given, axes = node.args
            n_axes = given.meta["val"].ndim
            with graph.inserting_before(node):
                for axis in sorted((axis % n_axes for axis in axes), reverse=True):
                    squeezed = graph.call_function(aten.squeeze.dim, (given, axis))
                    squeezed.meta = {**node.meta, "val": given.meta["val"].squeeze(axis)}
                    given = squeezed
            node.replace_all_uses_with(given)
            graph.erase_node(node)
        elif node.target is aten.logical_and_.default and len(node.args[0].users) == 1:  # nobody sees it written to
            node.target = aten.logical_and.default


def _convolution_backward(  # noqa: PLR0913 (the operator's own arguments)
    grad_output: Tensor,
    given: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor | None, None, None]:
    """The gradient at the input of a convolution with frozen weights.

    With stride 1 it is a convolution with the kernel turned by half a turn and its two channel axes exchanged, for
    which runtimes have their fastest kernels; otherwise a transposed convolution.
    """
    if transposed or output_mask[1] or output_mask[2]:
        raise NotImplementedError("only the input's gradient of a plain convolution is exported: freeze the weights")
    kernel = weight.shape[2:]
    if all(step == 1 for step in stride) and groups == 1:
        turned = weight.flip([axis + 2 for axis in range(len(kernel))]).transpose(0, 1)
        around = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
        if all(size >= 0 for size in around):
            return aten.convolution(grad_output, turned, None, stride, around, dilation, False, [0, 0], 1), None, None
    lost = [
        given.shape[axis + 2] - ((grad_output.shape[axis + 2] - 1) * stride[axis] - 2 * padding[axis])
        - (dilation[axis] * (kernel[axis] - 1) + 1)
        for axis in range(len(kernel))
    ]  # fmt: skip
    back = aten.convolution(grad_output, weight, None, stride, padding, dilation, True, [int(n) for n in lost], groups)
    return back, None, None


def enlarge(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *others: Any,
    _plain: Callable[..., Tensor] = F.interpolate,
    **options: Any,
) -> Tensor:
    """`torch.nn.functional.interpolate`, of which nearest-neighbour enlargement by a whole factor is two products.

    PyTorch's decomposition gathers by index, and the derivative of that is a scatter with repeated indices, which
    ONNX Runtime adds up from several threads at once: wrong now and then (seen with 1.32). The derivative of a
    product is a product with the transposed matrix, exact as the enlargement is, and the fastest kernel there is.
    """
    if mode != "nearest" or input.ndim != 4:
        return _plain(input, size, scale_factor, mode, *others, **options)
    height, width = int(input.shape[2]), int(input.shape[3])
    given = scale_factor if size is None else size
    two = (given, given) if isinstance(given, int | float) else given
    rows, columns = (int(n * f) for n, f in zip((height, width), two, strict=True)) if size is None else map(int, two)
    if rows % height or columns % width:
        raise NotImplementedError(f"enlargement of {height} x {width} to {rows} x {columns} is no whole factor")
    left, right = _copies(height, rows // height, input), _copies(width, columns // width, input)
    return left @ (input @ right.T)


def _copies(size: int, factor: int, like: Tensor) -> Tensor:
    """(size * factor, size): row i holds a one in column i // factor."""
    source = torch.arange(size * factor, device=like.device) // factor
    return (source[:, None] == torch.arange(size, device=like.device)).to(like.dtype)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` as two products and a softmax, scaled once."""
    if attn_mask is not None or dropout_p or is_causal or enable_gqa:
        raise NotImplementedError("attention with a mask, dropout or grouped heads is not exported with its gradient")
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return torch.softmax((query * factor) @ key.transpose(-2, -1), dim=-1) @ value


def _softmax(given: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Without the safe one's care for rows that are masked entirely: nothing is masked here."""
    return torch.softmax(given, dim, dtype=dtype)


def _from_number(given: Tensor, number: float, alpha: float = 1) -> Tensor:
    return given * -alpha + number


def _empty_permuted(size: Any, physical_layout: Any, **options: Any) -> Tensor:
    return torch.zeros(size, dtype=options.get("dtype"), device=options.get("device"))


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(target.dtype).expand(target.shape).clone()


def _slice_backward(grad: Tensor, input_sizes: Any, dim: int, start: int, end: int, step: int) -> Tensor:
    """Zeros around the gradient, where PyTorch would scatter into zeros."""
    if step != 1:
        raise NotImplementedError(f"a slice with step {step} is not exported with its gradient")
    dim, length = dim % len(input_sizes), input_sizes[dim]
    start = start + length if start < 0 else start
    return _between_zeros(grad, dim, start, length - start - grad.shape[dim])


def _select_backward(grad: Tensor, input_sizes: Any, dim: int, index: int) -> Tensor:
    dim, length = dim % len(input_sizes), input_sizes[dim]
    index = index + length if index < 0 else index
    return _between_zeros(grad.unsqueeze(dim), dim, index, length - index - 1)


def _between_zeros(grad: Tensor, dim: int, before: Any, after: Any) -> Tensor:
    parts = [grad.new_zeros([*grad.shape[:dim], n, *grad.shape[dim + 1 :]]) if n else None for n in (before, after)]
    return torch.cat([part for part in (parts[0], grad, parts[1]) if part is not None], dim)


def _group_norm(
    given: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: Any,
    channels: Any,
    pixels: Any,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    rows = given.reshape(given.shape[0], groups, int(channels) // groups * int(pixels))
    mean, normal, rstd = _normal(rows, eps)
    per_channel = (-1, *[1] * (given.ndim - 2))
    out = normal.reshape(given.shape)
    out = out if weight is None else out * weight.reshape(per_channel)
    out = out if bias is None else out + bias.reshape(per_channel)
    return out.contiguous(), mean, rstd


def _group_norm_backward(  # noqa: PLR0913 (the operator's own arguments)
    gradient: Tensor,
    given: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    n: Any,
    channels: Any,
    pixels: Any,
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor, None, None]:
    _only_the_input(output_mask)
    shape = (given.shape[0], groups, int(channels) // groups * int(pixels))
    normal = (given.reshape(shape) - mean) * rstd
    scaled = gradient if weight is None else gradient * weight.reshape(-1, *[1] * (given.ndim - 2))
    return _through(scaled.reshape(shape), normal, rstd).reshape(given.shape).contiguous(), None, None


def _layer_norm(
    given: Tensor, shape: Sequence[Any], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    _only_the_last_axis(shape)
    mean, out, rstd = _normal(given, eps)
    out = out if weight is None else out * weight
    out = out if bias is None else out + bias
    # The operator's result is contiguous whatever its input was, and what follows views it.
    return out.contiguous(), mean, rstd


def _layer_norm_backward(
    gradient: Tensor,
    given: Tensor,
    shape: Sequence[Any],
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    output_mask: Sequence[bool],
) -> tuple[Tensor, None, None]:
    _only_the_input(output_mask)
    scaled = gradient if weight is None else gradient * weight
    return _through(scaled, (given - mean) * rstd, rstd).contiguous(), None, None


def _normal(rows: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, normalised rows and 1 / deviation over the last axis."""
    mean = rows.mean(-1, keepdim=True)
    centred = rows - mean
    rstd = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + eps)
    return mean, centred * rstd, rstd


def _through(scaled: Tensor, normal: Tensor, rstd: Tensor) -> Tensor:
    """The gradient at the input of a normalisation over the last axis, from that at its output."""
    along = normal * (scaled * normal).mean(-1, keepdim=True)
    return (scaled - (along + scaled.mean(-1, keepdim=True))) * rstd


def _silu(given: Tensor) -> Tensor:
    return given * torch.sigmoid(given)


def _silu_backward(gradient: Tensor, given: Tensor) -> Tensor:
    gate = torch.sigmoid(given)
    out = given * gate
    return gradient * (gate * (1 - out) + out)


def _power(given: Tensor, exponent: float) -> Tensor:
    """A square is a product; other powers stay what they are."""
    return given * given if exponent == 2 else NotImplemented


def _only_the_input(output_mask: Sequence[bool]) -> None:
    if output_mask[1] or output_mask[2]:
        raise NotImplementedError("gradients of parameters are not exported: freeze the weights")


def _only_the_last_axis(shape: Sequence[Any]) -> None:
    if len(shape) != 1:
        raise NotImplementedError(f"a layer normalisation over {len(shape)} axes is not exported with its gradient")
