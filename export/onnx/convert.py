"""A traced program as an ONNX model that is the same, byte for byte, whenever and wherever it is made."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch._export.verifier import SpecViolationError

from ...runtime.bundle.graph_specs import BATCH
from ...runtime.errors import InputError
from ...runtime.models.models import Models
from .network_graph import NetworkGraph
from .simplify import simplify
from .tracing import trace

OPSET = 20


def export_network(graph: NetworkGraph, models: Models) -> onnx.ModelProto:
    """Trace, convert and simplify a graph.

    Parameters
    ----------
    graph
        Of :func:`~minddiffuser.export.graphs.base.network_graph`.
    models
        Float32, on the CPU, in contiguous memory format (:func:`prepare`).

    Returns
    -------
    onnx.ModelProto
        With all weights inside, under the networks' own names; nodes are named by the layer they belong to.

    Raises
    ------
    InputError
        The networks hold an operator that cannot be exported, it or its gradient, or the graph one that adds up at
        repeated indices, which ONNX Runtime does from several threads at once.
    """
    try:
        program = trace(graph, models)
    except (NotImplementedError, SpecViolationError) as error:  # the latter of an operator that writes into its input
        raise InputError(f"the graph {graph.name} cannot be exported from {models.name}: {error}") from error
    model = _converted(graph, program, models.name)
    simplify(model)
    _one_layout(model.graph)
    _rename(model, graph, _weight_names(models))
    _refuse_scatter(model, graph.name)
    return ir.to_proto(model)


def _converted(graph: NetworkGraph, program: torch.export.ExportedProgram, name: str) -> ir.Model:
    """A traced graph in ONNX's operators.

    PyTorch would break it down first, by tracing it once more, which takes most of the time. It is broken down
    already; only where a forward graph holds an operator that is not known (another network's) it goes the long way. A
    gradient has been broken down as far as PyTorch can.
    """
    whole = program.run_decompositions
    program.run_decompositions = lambda *_: program
    try:
        return _through_pytorch(graph, program)
    except torch.onnx.OnnxExporterError as error:
        if graph.backward is not None:
            raise _no_operator(graph, error, name) from error
    finally:
        program.run_decompositions = whole
    try:
        return _through_pytorch(graph, program)
    except torch.onnx.OnnxExporterError as error:
        raise _no_operator(graph, error, name) from error


def _no_operator(graph: NetworkGraph, error: BaseException, name: str) -> InputError:
    """What PyTorch's converter, whose own message is a page, says at its innermost."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__
    found = re.search(r"torch\.ops\.([\w.]+)", "\n".join(reversed(texts)))
    reason = f"the operator {found[1]}" if found else f"an operator ({texts[-1].splitlines()[0]:.100})"
    return InputError(
        f"the graph {graph.name} cannot be exported from {name}: PyTorch's converter to ONNX does not know {reason} "
        "in it: use a network without, or a newer PyTorch"
    )


def _through_pytorch(graph: NetworkGraph, program: torch.export.ExportedProgram) -> ir.Model:
    converted = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        optimize=False,
        verbose=False,
    )
    if converted is None:
        raise InputError(f"PyTorch gave no ONNX program for {graph.name}: install a PyTorch that has torch.onnx")
    return converted.model


def prepare(models: Models) -> None:
    """Put the networks' weights into the memory format that a graph stores them in, in place."""
    for part in (models.vae, models.unet, models.clip):
        part.to(memory_format=torch.contiguous_format)


def _refuse_scatter(model: ir.Model, name: str) -> None:
    for node in model.graph:
        reduction = node.attributes.get("reduction")
        if node.op_type.startswith("Scatter") and reduction is not None and reduction.as_string() != "none":
            raise InputError(
                f"the graph {name} adds up at repeated indices ({node.name}, {node.op_type}), which ONNX Runtime does "
                "from several threads at once, with wrong results: this network needs another decomposition"
            )


def _one_layout(graph: ir.Graph) -> None:
    """Let Gemm take its weight transposed, as all other products have it.

    Converted from a forward graph, a layer of one row is a Gemm that transposes its weight; from a gradient, one with
    the weight transposed. In two layouts they could not be shared on the disk.
    """
    turned: dict[ir.Value, ir.Value] = {}
    for node in graph:
        flag, value = node.attributes.get("transB"), node.inputs[1] if node.op_type == "Gemm" else None
        if flag is None or flag.as_int() == 0 or value is None or value.const_value is None:
            continue
        if value not in turned:
            array, name = np.ascontiguousarray(value.const_value.numpy().T), f"{value.name}_transposed"
            kind = ir.TensorType(value.const_value.dtype)
            tensor = ir.tensor(array, name=name)
            turned[value] = ir.Value(name=name, shape=ir.Shape(array.shape), type=kind, const_value=tensor)
            graph.register_initializer(turned[value])
        node.replace_input_with(1, turned[value])
        node.attributes.add(ir.AttrInt64("transB", 0))
    for value in turned:
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(str(value.name))


def _rename(model: ir.Model, graph: NetworkGraph, names: Mapping[str, str]) -> None:
    """Take away what names this machine and this run; give weights their own names and nodes their layers'."""
    taken: set[str] = set()
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        known = _name_of(tensor.numpy(), names) if tensor is not None and tensor.size > 1 else None
        if known is not None and known not in taken:
            taken.add(known)
            value.name = known
    batch = {
        size.value for value in model.graph.inputs if value.shape for size in value.shape if not isinstance(size, int)
    }
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            sizes = [size if isinstance(size, int) else BATCH for size in value.shape]
            value.shape = ir.Shape(sizes)
    if len(batch) > 1:
        raise InputError(f"the graph {graph.name} has more than one free size: {sorted(map(str, batch))}")
    count: Counter[str] = Counter()
    for node in model.graph:
        layer = _layer(node, taken)
        count[f"{layer}/{node.op_type}"] += 1
        node.name = f"{layer}/{node.op_type}_{count[f'{layer}/{node.op_type}']}"
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.shape = None  # what is inferred again by whoever needs it
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.doc_string = model.doc_string = None
    model.graph.name = graph.name
    model.producer_name, model.producer_version = "minddiffuser", None


def _weight_names(models: Models) -> dict[str, str]:
    """Content -> the network's own name of every parameter and buffer."""
    found: dict[str, str] = {}
    for part in ("unet", "vae", "clip"):
        for name, tensor in getattr(models, part).state_dict().items():
            found.setdefault(_key(tensor.detach().cpu().numpy()), f"{part}.{name}")
    return found


def _name_of(array: Any, names: Mapping[str, str]) -> str | None:
    """The network's own name of a weight, marked where it is transposed."""
    plain = names.get(_key(array))
    if plain is not None or array.ndim != 2:
        return plain
    turned = names.get(_key(np.ascontiguousarray(array.T)))
    return None if turned is None else f"{turned}_transposed"


def _key(array: Any) -> str:
    digest = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


def _layer(node: ir.Node, weights: set[str]) -> str:
    """The layer that a node belongs to: by its weight, or the one before it."""
    for value in node.inputs:
        while value is not None and value.producer() is not None and value.producer().op_type in ("Transpose", "Slice"):  # type: ignore[union-attr]
            value = value.producer().inputs[0]  # type: ignore[union-attr]
        if value is not None and value.name in weights:
            return str(value.name).rpartition(".")[0]
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if producer is not None and producer.name and "/" in producer.name:
            return producer.name.rpartition("/")[0]
    return "input"
