"""From a differentiable function to one traced graph of plain operators with a free batch size, gradients included.

`torch.onnx.export` refuses functions that call autograd, and a reverse-mode trace made directly from the networks ties
every reshape to the batch it was traced with. What works is to go twice:

1. the forward function is exported with a free batch and broken down to primitive operators, whose shapes are
   expressions of the inputs' sizes;
2. `torch.func.vjp` of *that* graph is traced symbolically, exported again, and the operators of the backward pass are
   replaced by forward ones (:func:`backward_decompositions`), which every runtime has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..runtime.models.models import Models
from .graphs.base import BATCH, NetworkGraph

aten = torch.ops.aten
# Neither 1, which is taken for a broadcast, nor a number that occurs among the networks' own sizes.
EXAMPLE_BATCH = 3


def trace(graph: NetworkGraph, models: Models) -> torch.export.ExportedProgram:
    """Trace a graph with a free batch size.

    Parameters
    ----------
    graph
        Of :func:`~minddiffuser.export.graphs.base.network_graph`.
    models
        The networks that it uses, in contiguous memory format; they become the program's parameters.
    """
    example = example_inputs(graph)
    chosen = tuple(example[name] for name in graph.forward_inputs)
    program: torch.export.ExportedProgram
    with _plain_attention(), torch.no_grad():
        graph.forward(*(array[:1] if _is_free(graph, name) else array for name, array in _named(graph, chosen)))
        program = torch.export.export(
            _Module(graph.forward, models), chosen, strict=False, dynamic_shapes=(_free(graph, graph.forward_inputs),)
        )
        program = program.run_decompositions(forward_decompositions(gradient=graph.backward is not None))
    if graph.backward is None:
        return program
    return _trace_backward(graph, program, example)


def _trace_backward(
    graph: NetworkGraph, forward: torch.export.ExportedProgram, example: Mapping[str, Tensor]
) -> torch.export.ExportedProgram:
    if graph.backward is None:
        raise ValueError(graph.name)
    module = forward.module(check_guards=False)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    function = graph.backward(module)
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True, static_shapes=False)
    fake = [_fake(mode, array, free=_is_free(graph, name)) for name, array in example.items()]
    with mode:
        # Positional, since make_fx knows no names.
        table = backward_decompositions()
        traced = make_fx(function, table, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*fake)
    return torch.export.export(
        traced, tuple(example.values()), strict=False, dynamic_shapes=tuple(_free(graph, tuple(example)))
    )


class _Module(torch.nn.Module):
    """Names the networks, so that exported weights carry their names."""

    def __init__(self, function: Callable[..., Any], models: Models) -> None:
        super().__init__()
        self.unet, self.vae, self.clip = models.unet, models.vae, models.clip
        self._function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self._function(*inputs)


def example_inputs(graph: NetworkGraph, batch: int = EXAMPLE_BATCH, seed: int = 0) -> dict[str, Tensor]:
    """Seeded random inputs of a graph in their usual ranges, float32."""
    make = torch.Generator().manual_seed(seed)
    made: dict[str, Tensor] = {}
    for name, spec in graph.inputs.items():
        shape = [batch if size == BATCH else int(size) for size in spec.shape]
        array = torch.randn(shape, generator=make)
        if name in ("mask", "image"):
            array = torch.rand(shape, generator=make)
            array = (array < 0.25).float() if name == "mask" else array
        fixed = {
            "step": torch.tensor([401.0, 1.01, -0.05]),
            "guidance": torch.tensor([5.0]),
            "semantic_weight": torch.tensor([0.1]),
            "layer_weights": torch.full(shape, 1 / shape[-1]),
        }
        made[name] = fixed.get(name, array)
    return made


def _named(graph: NetworkGraph, arrays: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    return list(zip(graph.forward_inputs, arrays, strict=True))


def _is_free(graph: NetworkGraph, name: str) -> bool:
    return graph.inputs[name].shape[0] == BATCH


def _free(graph: NetworkGraph, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple({0: torch.export.Dim.DYNAMIC} if _is_free(graph, name) else None for name in names)


def _fake(mode: FakeTensorMode, array: Tensor, *, free: bool) -> Tensor:
    sizes = [DimDynamic.DYNAMIC if free and axis == 0 else DimDynamic.STATIC for axis in range(array.ndim)]
    return mode.from_tensor(array, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as two products and a softmax: fused kernels have no operator in ONNX and no derivative in a trace."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def forward_decompositions(*, gradient: bool) -> dict[Any, Callable[..., Any]]:
    """What the forward function is broken down to: what has to be, or, to be differentiated, core operators.

    Normalisation layers stay whole in both cases. In a forward graph they become LayerNormalization and
    GroupNormalization, which runtimes have kernels for.
    """
    ours: dict[Any, Callable[..., Any]] = {aten._safe_softmax.default: _softmax}
    if not gradient:
        return ours
    return {
        **torch.export.default_decompositions(),
        **ours,
        aten.scaled_dot_product_attention.default: _attention,
        aten.upsample_nearest2d.vec: _upsample_nearest,
        aten.upsample_nearest2d.default: _upsample_nearest,
    }


def backward_decompositions() -> dict[Any, Callable[..., Any]]:
    """PyTorch's own, and ours for what would have no operator in ONNX, none in TensorRT, or too many parts."""
    return {
        **torch.export.default_decompositions(),
        # Whole, a LayerNormalization would have outputs that TensorRT's parser refuses.
        **get_decompositions([aten.native_layer_norm, aten.native_group_norm]),
        aten.convolution_backward.default: _convolution_backward,
        aten.empty_permuted.default: _empty_permuted,
        aten.copy.default: _copy,
        aten.slice_backward.default: _slice_backward,
        aten.select_backward.default: _select_backward,
    }


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


def _upsample_nearest(given: Tensor, output_size: Any, *scales: Any) -> Tensor:
    """Nearest-neighbour enlargement by a whole factor, as products with a matrix of zeros and ones on either side.

    PyTorch's decomposition gathers by index, and the derivative of that is a scatter with repeated indices, which
    ONNX Runtime adds up from several threads at once: wrong now and then (seen with 1.32). The derivative of a
    product is a product with the transposed matrix, exact as the enlargement is, and the fastest kernel there is.
    """
    height, width = int(given.shape[2]), int(given.shape[3])
    factors = output_size is None and [float(s) for s in (scales[0] if len(scales) == 1 else scales)]
    rows, columns = (int(height * factors[0]), int(width * factors[1])) if factors else map(int, output_size)
    if rows % height or columns % width:
        raise NotImplementedError(f"enlargement of {height} x {width} to {rows} x {columns} is no whole factor")
    left, right = _copies(height, rows // height, given), _copies(width, columns // width, given)
    return left @ (given @ right.T)


def _copies(size: int, factor: int, like: Tensor) -> Tensor:
    """(size * factor, size): row i holds a one in column i // factor."""
    source = torch.arange(size * factor, device=like.device) // factor
    return (source[:, None] == torch.arange(size, device=like.device)).to(like.dtype)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Two products and a softmax, scaled once."""
    if mask is not None or dropout or causal or enable_gqa:
        raise NotImplementedError("attention with a mask, dropout or grouped heads is not exported with its gradient")
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return torch.softmax((query * factor) @ key.transpose(-2, -1), dim=-1) @ value


def _softmax(given: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Without the safe one's care for rows that are masked entirely: nothing is masked here."""
    return torch.softmax(given, dim, dtype=dtype)


def _empty_permuted(size: Any, physical_layout: Any, **options: Any) -> Tensor:
    return torch.zeros(size, dtype=options.get("dtype"), device=options.get("device"))


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(target.dtype).expand(target.shape).clone()


def _slice_backward(grad: Tensor, input_sizes: Any, dim: int, start: int, end: int, step: int) -> Tensor:
    """Zeros around the gradient, where PyTorch would scatter into zeros."""
    if step != 1:
        raise NotImplementedError(f"a slice with step {step} is not exported with its gradient")
    length = input_sizes[dim]
    start = start + length if start < 0 else start
    return _between_zeros(grad, dim, start, length - start - grad.shape[dim])


def _select_backward(grad: Tensor, input_sizes: Any, dim: int, index: int) -> Tensor:
    length = input_sizes[dim]
    index = index + length if index < 0 else index
    return _between_zeros(grad.unsqueeze(dim), dim, index, length - index - 1)


def _between_zeros(grad: Tensor, dim: int, before: Any, after: Any) -> Tensor:
    parts = [grad.new_zeros([*grad.shape[:dim], n, *grad.shape[dim + 1 :]]) if n else None for n in (before, after)]
    return torch.cat([part for part in (parts[0], grad, parts[1]) if part is not None], dim)
