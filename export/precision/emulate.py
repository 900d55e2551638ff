"""A 16-bit graph computed in float32 with every stored tensor rounded: its numbers without its kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .onnx_tools import FLOAT, raw_tensor, refuse_unusual, tensor_types, without_weights
from .probe import HANDS_ON

HALF_TYPES = (int(TensorProto.FLOAT16), int(TensorProto.BFLOAT16))


def emulate(model: ModelProto) -> ModelProto:
    """A float32 graph that gives the numbers of a 16-bit graph on any CPU.

    Every 16-bit tensor becomes a float32 one that is rounded, by a Cast there and back, right after the node that
    makes it; 16-bit weights become the float32 numbers that they are. Nothing else changes, so the layers compute in
    float32.

    What it shows: the loss by storing tensors and weights in 16 bits (digits, overflow to infinity, subnormal numbers),
    among them the sum of a mean, which ONNX Runtime stores on CUDA before it divides; and the loss by the order of the
    Casts. What it does not show: a kernel that also accumulates in 16 bits (then errors are larger), one that fuses
    several nodes and keeps float32 between them (smaller), hardware that flushes subnormal numbers to zero, and speed.

    Parameters
    ----------
    model : ModelProto
        A graph as :func:`to_half.to_half` makes it. It is not changed.

    Raises
    ------
    InputError
        The graph has subgraphs, functions or external weights.
    """
    refuse_unusual(model)
    types = tensor_types(model)
    result = without_weights(model)
    del result.graph.node[:], result.graph.value_info[:]
    for tensor in model.graph.initializer:
        if tensor.data_type in HALF_TYPES:
            array = np.asarray(numpy_helper.to_array(tensor)).astype(np.float32)
            tensor = raw_tensor(tensor.name, FLOAT, array)
        result.graph.initializer.append(tensor)
    for node in model.graph.node:
        result.graph.node.extend(_emulated(node, types))
    for value in (*result.graph.input, *result.graph.output):
        if value.type.tensor_type.elem_type in HALF_TYPES:
            value.type.tensor_type.elem_type = FLOAT
    return result


def _emulated(node: NodeProto, types: dict[str, int]) -> list[NodeProto]:
    """The node in float32, and after it the rounding of each 16-bit output."""
    plain = NodeProto()
    plain.CopyFrom(node)
    for attribute in plain.attribute:
        if attribute.name in ("to", "dtype", "output_dtype", "output_datatype") and attribute.i in HALF_TYPES:
            attribute.i = FLOAT
        if attribute.HasField("t") and attribute.t.data_type in HALF_TYPES:
            array = np.asarray(numpy_helper.to_array(attribute.t)).astype(np.float32)
            attribute.t.CopyFrom(raw_tensor(attribute.t.name, FLOAT, array))
    stored = [name for name in node.output if name and types[name] in HALF_TYPES]
    if node.op_type in HANDS_ON and node.input and types[node.input[0]] in HALF_TYPES:
        return [plain]  # it hands on numbers that are rounded already
    if node.op_type == "ReduceMean" and stored:
        return _emulated_mean(plain, types[node.output[0]])
    after = []
    for name in stored:
        plain.output[list(plain.output).index(name)] = f"{name}:exact"
        after += _rounded(f"{name}:exact", name, types[name])
    return [plain, *after]


def _rounded(exact: str, name: str, half: int) -> list[NodeProto]:
    """Cast a tensor there and back."""
    there = helper.make_node("Cast", [exact], [f"{name}:stored"], name=f"{name}:store", to=half)
    return [there, helper.make_node("Cast", [f"{name}:stored"], [name], name=f"{name}:load", to=FLOAT)]


def _emulated_mean(node: NodeProto, half: int) -> list[NodeProto]:
    """The sum, stored, divided by the number of its terms, and stored again."""
    name, total, count, exact = node.output[0], *(f"{node.output[0]}:{part}" for part in ("sum", "count", "exact"))
    node.op_type, node.output[0] = "ReduceSum", f"{total}:exact"

    def make(operator: str, given: list[str], output: str, **attributes: Any) -> NodeProto:
        return helper.make_node(operator, given, [output], name=output, **attributes)

    return [
        node,
        *_rounded(f"{total}:exact", total, half),
        make("Size", [node.input[0]], f"{count}:whole"),
        make("Size", [total], f"{count}:parts"),
        make("Div", [f"{count}:whole", f"{count}:parts"], f"{count}:integer"),
        make("Cast", [f"{count}:integer"], count, to=FLOAT),
        make("Div", [total, count], exact),
        *_rounded(exact, name, half),
    ]
