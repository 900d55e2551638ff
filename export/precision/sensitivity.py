"""What each layer alone costs in int8: by which layers are exempted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from .measuring import LARGEST, TINY, Bench, Feeds, Tap, measure
from .onnx_tools import FLOAT, raw_tensor, session_of, tensor_types, weights_of
from .qdq import INT8, Layer
from .quantising import FEWER_LEVELS, in_eight_bits, scale_of

Array = NDArray[Any]
Outputs = list[list[Array]]  # of each run, in the graph's order
PER_SESSION = 64  # every layer brings a second, quantised copy of its weight


def outputs_of(model: ModelProto, runs: Sequence[Feeds], threads: int) -> Outputs:
    """The float32 outputs of each run."""
    types = tensor_types(model)
    names = [value.name for value in model.graph.output if types[value.name] == FLOAT]
    with session_of(model, threads) as session:
        return [[np.asarray(found) for found in session.run(names, feeds)] for feeds in runs]


def relative_error(found: Outputs, expected: Outputs) -> float:
    """The largest ``||found - expected|| / ||expected||`` of an output, over all runs; infinite for NaN."""
    worst = 0.0
    for outputs, wanted in zip(zip(*found, strict=True), zip(*expected, strict=True), strict=True):
        pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(outputs, wanted, strict=True)]
        lost = sum(float(np.vdot(a - b, a - b)) for a, b in pairs)
        whole = sum(float(np.vdot(b, b)) for _, b in pairs)
        error = np.sqrt(lost / whole) if whole > 0 else (0.0 if lost == 0 else np.inf)
        worst = max(worst, float(error) if np.isfinite(error) else np.inf)
    return worst


def losses_of(
    model: ModelProto,
    layers: Sequence[Layer],
    peaks: Mapping[str, float],
    batches: Sequence[Feeds],
    *,
    threads: int,
) -> dict[str, float]:
    """Relative error of each layer's output when it alone is in int8: ``||y' - y|| / ||y||`` over all batches.

    All layers are measured in the same few runs, so this suits a graph that is slow to run; but a layer that loses
    little may weigh much in the outputs. Parameters are those of :func:`qdq.with_qdq`. A layer whose output is all zero
    loses nothing.
    """
    weights = weights_of(model)

    def tap(layer: Layer) -> Tap:
        def build(bench: Bench) -> list[str]:
            peak, scale = bench.scale(layer.made)
            energy = bench.energy(bench.node("Div", bench.up_to(layer.made, LARGEST), scale))
            made = _in_int8(bench, layer, weights, peaks)
            return [peak, energy, bench.change(layer.made, made, scale)[0]]

        return Tap(layer.made, build, 3)

    read = measure(model, [tap(layer) for layer in layers], batches, threads=threads, per_session=PER_SESSION)
    squares = np.maximum(read[:, 0::3], TINY) ** 2
    whole, lost = (read[:, 1::3] * squares).sum(axis=0), (read[:, 2::3] * squares).sum(axis=0)
    losses = np.sqrt(np.divide(lost, whole, out=np.zeros_like(lost), where=whole > 0))
    return {layer.name: float(loss) for layer, loss in zip(layers, losses, strict=True)}


def _in_int8(bench: Bench, layer: Layer, weights: Mapping[str, TensorProto], peaks: Mapping[str, float]) -> str:
    """Compute a layer once more, in int8; returns the name of its output."""
    array = np.asarray(numpy_helper.to_array(weights[layer.weight]))
    numbers, steps = in_eight_bits(array, layer.axis, levels=FEWER_LEVELS)
    twin = NodeProto()
    twin.CopyFrom(layer.node)
    twin.name = bench.name()
    weight = bench.node("DequantizeLinear", _constant(bench, numbers), _constant(bench, steps), axis=layer.axis)
    twin.input[0], twin.input[1] = _rounded(bench, layer.given, peaks[layer.given]), weight
    twin.output[0] = bench.name()
    bench.nodes.append(twin)
    made = str(twin.output[0])
    return _rounded(bench, made, peaks[layer.made]) if layer.stores_output else made


def _rounded(bench: Bench, tensor: str, peak: float) -> str:
    scale, zero = _constant(bench, scale_of(peak)), _constant(bench, np.asarray(0, np.int8))
    return bench.node("DequantizeLinear", bench.node("QuantizeLinear", tensor, scale, zero), scale, zero)


def _constant(bench: Bench, array: Array) -> str:
    name = bench.name()
    element = {"int8": INT8, "float32": FLOAT}[array.dtype.name]
    bench.weights[name] = raw_tensor(name, element, array)
    return name
