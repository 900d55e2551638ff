"""QuantizeLinear and DequantizeLinear around chosen layers: int8 that lives in the graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .onnx_tools import FLOAT, layer_name, raw_tensor, weights_of, without_weights
from .quantising import FEWER_LEVELS, in_eight_bits, scale_of

Array = NDArray[Any]
INT8, INT32 = int(TensorProto.INT8), int(TensorProto.INT32)


@dataclass(frozen=True)
class Layer:
    """A layer that int8 kernels exist for: Conv, MatMul or Gemm with a constant weight.

    Attributes
    ----------
    node : the node.
    axis : the weight's axis of output channels; each channel has a scale of its own.
    """

    node: NodeProto
    axis: int

    @property
    def name(self) -> str:
        return layer_name(self.node)

    @property
    def given(self) -> str:
        return str(self.node.input[0])

    @property
    def weight(self) -> str:
        return str(self.node.input[1])

    @property
    def bias(self) -> str:
        return str(self.node.input[2]) if len(self.node.input) > 2 else ""

    @property
    def made(self) -> str:
        return str(self.node.output[0])

    @property
    def stores_output(self) -> bool:
        """Whether the output is quantised too: ONNX Runtime fuses these two layers for sure only then."""
        return self.node.op_type in ("Conv", "MatMul")


def quantisable(model: ModelProto) -> list[Layer]:
    """The layers of a graph that can be put into int8, in its order."""
    weights, inputs = weights_of(model), {value.name for value in model.graph.input}
    layers = []
    for node in model.graph.node:
        constant = len(node.input) > 1 and node.input[1] in weights and node.input[1] not in inputs
        if not constant or node.domain not in ("", "ai.onnx") or node.input[0] in weights:
            continue
        weight = weights[node.input[1]]
        axis = _channel_axis(node, len(weight.dims))
        if axis is not None and weight.data_type == FLOAT:
            layers.append(Layer(node, axis))
    return layers


def _channel_axis(node: NodeProto, rank: int) -> int | None:
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "MatMul" and rank == 2:
        return 1
    if node.op_type == "Gemm" and not settings.get("transA", 0) and settings.get("alpha", 1.0) == 1.0:
        return 0 if settings.get("transB", 0) else 1
    return None


def stored_tensors(layers: Collection[Layer]) -> list[str]:
    """The activations whose size must be known to quantise these layers."""
    names = [layer.given for layer in layers] + [layer.made for layer in layers if layer.stores_output]
    return list(dict.fromkeys(names))


def with_qdq(model: ModelProto, layers: Collection[Layer], peaks: Mapping[str, float]) -> ModelProto:
    """Put layers into int8 where ONNX Runtime has integer kernels for them; everything else stays as it is.

    It has them for a convolution whose output and bias are quantised too, and for a MatMul whose output is (otherwise
    the bias behind it may be fused into a float32 layer first). Weights take 7 bits.

    Parameters
    ----------
    model : ModelProto
        Not changed.
    layers : collection of Layer
        Which to quantise, as :func:`quantisable` gives them.
    peaks : mapping
        Size that int8 reaches up to, for each of :func:`stored_tensors`.
    """
    return _Rewriting(model, peaks).run({x.name: x for x in layers})


class _Rewriting:
    """The graph while it is rewritten; what is quantised once is used by all."""

    def __init__(self, model: ModelProto, peaks: Mapping[str, float]) -> None:
        self.model, self.peaks = model, peaks
        self.weights = weights_of(model)
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.dequantised: dict[tuple[str, object], str] = {}
        self.scales: dict[tuple[str, object], Array] = {}

    def run(self, layers: Mapping[str, Layer]) -> ModelProto:
        result = without_weights(self.model)
        del result.graph.node[:]
        for node in self.model.graph.node:
            layer = layers.get(layer_name(node))
            if layer is None:
                self.nodes.append(node)
            else:
                self._quantise(layer)
        result.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input} | {value.name for value in self.model.graph.output}
        result.graph.initializer.extend(t for t in self.model.graph.initializer if t.name in used)
        result.graph.initializer.extend(self.constants.values())
        return result

    def _quantise(self, layer: Layer) -> None:
        given, weight = self._activation(layer.given), self._weight(layer)
        inputs = [given, weight, *([self._bias(layer)] if layer.bias else [])]
        node = NodeProto()
        node.CopyFrom(layer.node)
        node.input[:] = inputs
        self.nodes.append(node)
        if layer.stores_output:
            node.output[0] = f"{layer.made}:exact"
            self._store(node.output[0], layer.made, self._constant(f"{layer.made}:scale", self._scale(layer.made)))
            self.dequantised[layer.made, None] = layer.made

    def _scale(self, tensor: str) -> Array:
        return scale_of(self.peaks[tensor])

    def _constant(self, name: str, array: Array) -> str:
        element = {"float32": FLOAT, "int8": INT8, "int32": INT32}[array.dtype.name]
        self.constants.setdefault(name, raw_tensor(name, element, array))
        return name

    def _store(self, exact: str, made: str, scale: str) -> None:
        zero = self._constant("int8:zero", np.asarray(0, np.int8))
        store = helper.make_node("QuantizeLinear", [exact, scale, zero], [f"{made}:int8"], name=f"{made}:quantise")
        load = helper.make_node("DequantizeLinear", [f"{made}:int8", scale, zero], [made], name=f"{made}:dequantise")
        self.nodes += [store, load]

    def _activation(self, tensor: str) -> str:
        if (tensor, None) not in self.dequantised:
            scale = self._constant(f"{tensor}:scale", self._scale(tensor))
            self._store(tensor, f"{tensor}:rounded", scale)
            self.dequantised[tensor, None] = f"{tensor}:rounded"
        return self.dequantised[tensor, None]

    def _weight(self, layer: Layer) -> str:
        key = (layer.weight, layer.axis)
        if key not in self.dequantised:
            array = np.asarray(numpy_helper.to_array(self.weights[layer.weight]))
            numbers, self.scales[key] = in_eight_bits(array, layer.axis, levels=FEWER_LEVELS)
            name = layer.weight if (layer.weight, 1 - layer.axis) not in self.dequantised else f"{layer.weight}:other"
            self.dequantised[key] = self._load(name, numbers, self.scales[key], layer.axis)
        return self.dequantised[key]

    def _load(self, name: str, numbers: Array, scales: Array, axis: int) -> str:
        inputs = [self._constant(f"{name}:int8", numbers), self._constant(f"{name}:scale", scales)]
        inputs.append(self._constant(f"{name}:zero", np.zeros(scales.shape, numbers.dtype)))
        output = f"{name}:rounded"
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [output], name=f"{name}:dequantise", axis=axis))
        return output

    def _bias(self, layer: Layer) -> str:
        """The bias in steps of the accumulator, where it is constant and within int32."""
        tensor = self.weights.get(layer.bias)
        scales = self._scale(layer.given) * self.scales[layer.weight, layer.axis]
        if tensor is None or list(tensor.dims) != [len(scales)]:
            return layer.bias
        steps = np.rint(np.asarray(numpy_helper.to_array(tensor)).astype(np.float64) / scales)
        if not np.all(np.abs(steps) < 2**31):
            return layer.bias
        key = (layer.bias, layer.name)
        self.dequantised[key] = self._load(f"{layer.name}:bias", steps.astype(np.int32), scales, 0)
        return self.dequantised[key]
