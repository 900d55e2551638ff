"""A float32 graph in 16 bits, with the Casts and the float32 regions written into it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ...runtime.errors import InputError
from .formats import Half, half_of
from .onnx_tools import (
    FLOAT,
    layer_name,
    raw_tensor,
    refuse_unusual,
    tensor_types,
    weights_of,
    with_constants_as_weights,
    without_weights,
)
from .operators import BFLOAT_OPSET, Ports, opset_for, ports_of

Array = NDArray[Any]
BFLOAT_IR = 10  # the first version of the file format that opset 22 may be written in
TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "output_datatype"})
MAKES_FLOAT32 = frozenset({"RandomNormal", "RandomUniform", "EyeLike", "ConstantOfShape"})  # where no attribute says so


def to_half(model: ModelProto, dtype: str, keep: Collection[str] = ()) -> ModelProto:
    """Put a float32 graph into 16 bits. Its inputs and outputs stay float32.

    Weights become 16-bit unless only kept layers use them; a weight that both sorts of layers use is stored in both
    types. A Cast stands wherever a tensor passes between regions: at most one for each tensor and direction. What is
    no float32 (shapes, indices, masks) stays as it is. Where bfloat16 needs newer operators than the graph has,
    its opset is raised to 22.

    Parameters
    ----------
    model : ModelProto
        A float32 graph with its weights inside. It is not changed.
    dtype : str
        "float16" or "bfloat16".
    keep : collection of str
        Names of the layers that stay in float32 (see :func:`rules.decide`). Layers that ONNX has no 16-bit form of
        stay in float32 anyway.

    Returns
    -------
    ModelProto
        The same bytes for the same arguments.

    Raises
    ------
    InputError
        The graph has subgraphs, is in 16 bits already, lacks a layer of `keep`, or a weight is too large for float16.
    """
    half = half_of(dtype)
    refuse_unusual(model)
    missing = set(keep) - set(map(layer_name, model.graph.node))
    source = with_constants_as_weights(model)
    missing -= set(map(layer_name, source.graph.node)) - {
        layer_name(node) for node in model.graph.node if node.op_type == "Constant"
    }
    if missing:
        raise InputError(f"the graph has no layer {min(missing)!r} to keep in float32: decide on this very graph")
    types = tensor_types(source)
    done = [name for name, kind in types.items() if kind in (TensorProto.FLOAT16, TensorProto.BFLOAT16)]
    if done:
        raise InputError(f"the tensor {done[0]!r} is in 16 bits already: convert the float32 graph")
    return _Conversion(source, half, set(keep), types).run()


class _Conversion:
    """The graph while it is rewritten: `native` is the form in which each tensor is made."""

    def __init__(self, source: ModelProto, half: Half, keep: set[str], types: Mapping[str, int]) -> None:
        self.source, self.half, self.keep, self.types = source, half, keep, types
        self.opset = opset_for(source, half)
        self.native: dict[str, bool] = {}  # float32 tensor -> whether it is made as half
        self.made: set[str] = set()
        self.nodes: list[NodeProto] = []
        taken = set(types)
        self.half_names = {name: f"{name}.{half.dtype}" for name, kind in types.items() if kind == FLOAT}
        clash = [name for name in self.half_names.values() if name in taken]
        if clash:
            raise InputError(f"the graph already has a tensor {clash[0]!r}: rename it")

    def run(self) -> ModelProto:
        result = without_weights(self.source)
        ports = [self._ports(node) for node in self.source.graph.node]
        result.graph.initializer.extend(self._weights(ports))
        for value in self.source.graph.input:
            self._declare(value.name, as_half=False)
        for node, allowed in zip(self.source.graph.node, ports, strict=True):
            self._rewrite(node, allowed)
        for value in self.source.graph.output:
            if self._is_float(value.name):
                self._take(value.name, as_half=False)
        del result.graph.node[:], result.graph.value_info[:]
        result.graph.node.extend(self.nodes)
        result.graph.value_info.extend(self._values())
        self._set_versions(result)
        return result

    def _is_float(self, name: str) -> bool:
        return bool(name) and self.types[name] == FLOAT

    def _ports(self, node: NodeProto) -> Ports:
        if layer_name(node) in self.keep:
            return Ports((False,) * len(node.input), (False,) * len(node.output))
        return ports_of(node, self.opset, self.half)

    def _weights(self, ports: list[Ports]) -> list[TensorProto]:
        """Each weight in the forms that its users want."""
        wanted: dict[str, set[bool]] = {value.name: {False} for value in self.source.graph.output}
        for node, allowed in zip(self.source.graph.node, ports, strict=True):
            for name, may in zip(node.input, allowed.inputs, strict=True):
                wanted.setdefault(name, set()).add(may)
        inputs = {value.name for value in self.source.graph.input}
        tensors = []
        for tensor in self.source.graph.initializer:
            forms = wanted.get(tensor.name, {False}) if self._is_float(tensor.name) else {False}
            if tensor.name in inputs:  # a default value of an input: the border is float32
                forms = {False}
            if False in forms:
                tensors.append(tensor)
                self._declare(tensor.name, as_half=False)
            if True in forms:
                array = self.half.rounded(np.asarray(numpy_helper.to_array(tensor)), tensor.name)
                tensors.append(raw_tensor(self.half_names[tensor.name], self.half.element, array))
                self._declare(tensor.name, as_half=True)
        return tensors

    def _declare(self, name: str, *, as_half: bool) -> str:
        self.native.setdefault(name, as_half)
        stored = self.half_names[name] if as_half else name
        self.made.add(stored)
        return stored

    def _take(self, name: str, *, as_half: bool) -> str:
        """The tensor's name in the form asked for; a Cast makes the form that is not there yet."""
        wanted = self.half_names[name] if as_half else name
        if wanted not in self.made:
            there = name if as_half else self.half_names[name]
            to = self.half.element if as_half else FLOAT
            self.nodes.append(helper.make_node("Cast", [there], [wanted], name=f"{wanted}:cast", to=to))
            self.made.add(wanted)
        return wanted

    def _rewrite(self, node: NodeProto, allowed: Ports) -> None:
        inputs = [
            self._take(name, as_half=may) if self._is_float(name) else name
            for name, may in zip(node.input, allowed.inputs, strict=True)
        ]
        outputs = [
            self._declare(name, as_half=may) if self._is_float(name) else name
            for name, may in zip(node.output, allowed.outputs, strict=True)
        ]
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.input[:], changed.output[:] = inputs, outputs
        if any(self._is_float(name) and may for name, may in zip(node.output, allowed.outputs, strict=True)):
            self._set_type(changed)
        self.nodes.append(changed)

    def _set_type(self, node: NodeProto) -> None:
        """Change the attributes that state the type of a node's output."""
        stated = False
        for attribute in node.attribute:
            if attribute.name in TYPE_ATTRIBUTES and attribute.i == FLOAT:
                attribute.i, stated = self.half.element, True
            if node.op_type == "ConstantOfShape" and attribute.name == "value":
                array = self.half.rounded(np.asarray(numpy_helper.to_array(attribute.t)), node.output[0])
                attribute.t.CopyFrom(raw_tensor(attribute.t.name, self.half.element, array))
                stated = True
        if stated or node.op_type not in MAKES_FLOAT32:
            return
        if node.op_type == "ConstantOfShape":
            zero = raw_tensor("", self.half.element, np.zeros(1, self.half.numpy))
            node.attribute.append(helper.make_attribute("value", zero))
        else:
            node.attribute.append(helper.make_attribute("dtype", self.half.element))

    def _values(self) -> list[ValueInfoProto]:
        """What the source knew of shapes, for each form that is left; inputs and outputs state theirs already."""
        values = []
        for value in self.source.graph.value_info:
            if value.name in self.made or not self._is_float(value.name):
                values.append(value)
            half_name = self.half_names.get(value.name)
            if half_name in self.made:
                changed = ValueInfoProto()
                changed.CopyFrom(value)
                changed.name, changed.type.tensor_type.elem_type = half_name, self.half.element
                values.append(changed)
        known = set(weights_of(self.source))
        return [value for value in values if value.name not in known]

    def _set_versions(self, model: ModelProto) -> None:
        for entry in model.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = self.opset
        if self.opset >= BFLOAT_OPSET:
            model.ir_version = max(model.ir_version, BFLOAT_IR)
