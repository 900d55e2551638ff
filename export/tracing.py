"""From a differentiable function to one traced graph of plain operators with a free batch size, gradients included.

`torch.onnx.export` refuses functions that call autograd, and a reverse-mode trace made directly from the networks ties
every reshape to the batch it was traced with. What works is to go twice:

1. the forward function is exported with a free batch and broken down to primitive operators, whose shapes are
   expressions of the inputs' sizes;
2. reverse mode through *that* graph is traced symbolically, exported again, and the operators of the backward pass are
   replaced by forward ones (:func:`~.decompositions.backward_decompositions`), which every runtime has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..runtime.graph_specs import BATCH
from ..runtime.models.models import Models
from .decompositions import backward_decompositions, forward_decompositions, settle
from .graphs.base import NetworkGraph

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
    settle(traced.graph)
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
