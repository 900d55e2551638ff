"""From a differentiable function to one traced graph of plain operators with a free batch size, gradients included.

`torch.onnx.export` refuses functions that call autograd. So reverse mode is traced symbolically through the networks
themselves, operators of the backward pass are replaced by forward ones
(:func:`~.decompositions.gradient_decompositions`), which every runtime has, and the trace is made a program as it
stands: exporting it with `torch.export` would trace all of it once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext, is_concrete_int
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...runtime.bundle.graph_specs import BATCH
from ...runtime.models.models import Models
from .decompositions import attention, enlarge, forward_decompositions, gradient_decompositions, settle
from .network_graph import NetworkGraph

# Neither 1, which is taken for a broadcast, nor a number that occurs among the networks' own sizes.
EXAMPLE_BATCH = 3


def trace(graph: NetworkGraph, models: Models) -> torch.export.ExportedProgram:
    """Trace a graph with a free batch size.

    Parameters
    ----------
    graph
        Of :func:`~minddiffuser.export.graphs.base.network_graph`.
    models
        The networks that it uses, in contiguous memory format; they become the program's parameters. They are frozen
        for a gradient.

    Raises
    ------
    NotImplementedError
        An operator whose gradient cannot be exported, or a gradient that holds for one batch size alone.
    """
    example = example_inputs(graph)
    chosen = tuple(example[name] for name in graph.forward_inputs)
    module = _Module(graph.forward, models)
    with as_in_graph(graph), torch.no_grad():
        graph.forward(*(array[:1] if _is_free(graph, name) else array for name, array in _named(graph, chosen)))
        if graph.backward is None:
            shapes = (_free(graph, graph.forward_inputs),)
            program: torch.export.ExportedProgram = torch.export.export(
                module, chosen, strict=False, dynamic_shapes=shapes
            ).run_decompositions(forward_decompositions())
            return program
    return _trace_gradient(graph, module, example)


def _trace_gradient(
    graph: NetworkGraph, module: torch.nn.Module, example: Mapping[str, Tensor]
) -> torch.export.ExportedProgram:
    module.requires_grad_(False)
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True, static_shapes=False)
    fake = [_fake(mode, array, free=_is_free(graph, name)) for name, array in example.items()]
    with as_in_graph(graph), mode:
        # Positional, since make_fx knows no names.
        table = gradient_decompositions()
        traced = make_fx(graph.function, table, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*fake)
    settle(traced.graph)
    return _as_program(graph, traced, tuple(example.values()))


def _as_program(
    graph: NetworkGraph, traced: torch.fx.GraphModule, example: tuple[Tensor, ...]
) -> torch.export.ExportedProgram:
    """A traced function as a program, its weights lifted to inputs as a program has them."""
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder"]
    weights = {node.target: getattr(traced, node.target) for node in traced.graph.nodes if node.op == "get_attr"}
    lifted = _lift(traced.graph, weights, inputs[0])
    for node in traced.graph.nodes:
        node.meta["nn_module_stack"] = {}  # PyTorch's converter warns of each node that says nothing of its layer
    (last,) = (node for node in traced.graph.nodes if node.op == "output")
    results = last.args[0] if len(graph.outputs) > 1 else last.args
    last.args = (tuple(results),)
    for name, node in zip(graph.outputs, results, strict=True):
        if graph.outputs[name].shape[0] == BATCH and is_concrete_int(node.meta["val"].shape[0]):
            raise NotImplementedError(f"the network computes its output {name} for one number of trials alone")
    signature = ExportGraphSignature(
        [
            *(
                InputSpec(InputKind.BUFFER, TensorArgument(node.name), str(target), True)
                for target, node in lifted.items()
            ),
            *(InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None) for node in inputs),
        ],
        [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in results],
    )
    spec_in, spec_out = (torch.utils._pytree.tree_structure(part) for part in ((example, {}), tuple(results)))
    call = torch.export.ModuleCallSignature(
        [TensorArgument(n.name) for n in inputs], [TensorArgument(n.name) for n in results], spec_in, spec_out
    )
    return torch.export.ExportedProgram(
        traced, traced.graph, signature, weights, {}, [torch.export.ModuleCallEntry("", call)], (example, {})
    )


def _lift(graph: torch.fx.Graph, weights: Mapping[str, Tensor], first: torch.fx.Node) -> dict[str, torch.fx.Node]:
    """Turn the weights that a graph reads, in place, into inputs before its first one."""
    lifted: dict[str, torch.fx.Node] = {}
    for node in [node for node in graph.nodes if node.op == "get_attr"]:
        if node.target not in lifted:
            with graph.inserting_before(first):
                lifted[node.target] = graph.placeholder(node.target)
            lifted[node.target].meta = dict(node.meta)
        node.replace_all_uses_with(lifted[node.target])
        graph.erase_node(node)
    return lifted


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
    sizes = [DimDynamic.DUCK if free and axis == 0 else DimDynamic.STATIC for axis in range(array.ndim)]
    return mode.from_tensor(array, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))


@contextmanager
def as_in_graph(graph: NetworkGraph) -> Iterator[None]:
    """Let the graph's function compute as what is exported: attention and, for gradients, enlargement as products."""
    with _plain_attention(), nullcontext() if graph.backward is None else _functions_of_ours():
        yield


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


@contextmanager
def _functions_of_ours() -> Iterator[None]:
    """What networks call, so that their derivatives are of ours as well: these are gone before operators are traced."""
    before = F.scaled_dot_product_attention, F.interpolate
    F.scaled_dot_product_attention, F.interpolate = attention, enlarge
    try:
        yield
    finally:
        F.scaled_dot_product_attention, F.interpolate = before
