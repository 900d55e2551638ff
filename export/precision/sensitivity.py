"""What each layer alone costs in int8: the figure by which layers are exempted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .measuring import LARGEST, TINY, Bench, Feeds, Tap, measure
from .onnx_tools import FLOAT, raw_tensor, session_of, tensor_types, weights_of, without_weights
from .qdq import INT8, Form, Layer
from .quantising import FEWER_LEVELS, LEVELS, in_eight_bits, scale_of

Array = NDArray[Any]
Outputs = list[list[Array]]  # of each run, in the graph's order
PER_SESSION = 64  # every layer brings a second, quantised copy of its weight
CHOSEN = "measuring:chosen"


def outputs_of(model: ModelProto, runs: Sequence[Feeds], threads: int) -> Outputs:
    """The float32 outputs of each run."""
    with session_of(model, threads) as session:
        return _outputs(session, model, runs)


def _outputs(session: Any, model: ModelProto, runs: Sequence[Feeds]) -> Outputs:
    types = tensor_types(model)
    names = [value.name for value in model.graph.output if types[value.name] == FLOAT]
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


def effects_of(
    model: ModelProto,
    layers: Sequence[Layer],
    peaks: Mapping[str, float],
    batches: Sequence[Feeds],
    *,
    form: Form,
    reduce_range: bool,
    threads: int,
) -> dict[str, float]:
    """Relative error of the graph's outputs when one layer alone is in int8, for each layer.

    One session in which every layer is there in float32 and in int8 and an input says which one is to be in int8:
    as many runs as layers, each twice as long as a plain one. Parameters are those of :func:`qdq.with_qdq`.
    """
    bench, weights = Bench(), weights_of(model)
    switched = without_weights(model)
    nodes = list(switched.graph.node)
    del switched.graph.node[:]
    numbers = {layer.made: (index, layer) for index, layer in enumerate(layers)}
    for node in nodes:
        switched.graph.node.append(node)
        index, layer = numbers.get(next(iter(node.output), ""), (-1, None))
        if layer is not None:
            plain = switched.graph.node[-1]
            plain.output[0] = bench.name()
            made = _in_int8(bench, layer, weights, peaks, form=form, reduce_range=reduce_range)
            here = bench.node("Equal", CHOSEN, _constant(bench, np.asarray(index, np.int64)))
            bench.nodes.append(helper.make_node("Where", [here, made, plain.output[0]], [layer.made], bench.name()))
            switched.graph.node.extend(bench.nodes)
            bench.nodes = []
    switched.graph.input.append(helper.make_tensor_value_info(CHOSEN, TensorProto.INT64, []))
    switched.graph.initializer.extend([*model.graph.initializer, *bench.weights.values()])
    with session_of(switched, threads) as session:

        def run(index: int) -> Outputs:
            return _outputs(session, model, [{**feeds, CHOSEN: np.asarray(index, np.int64)} for feeds in batches])

        expected = run(-1)
        return {layer.name: relative_error(run(index), expected) for index, layer in enumerate(layers)}


def losses_of(
    model: ModelProto,
    layers: Sequence[Layer],
    peaks: Mapping[str, float],
    batches: Sequence[Feeds],
    *,
    form: Form,
    reduce_range: bool,
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
            made = _in_int8(bench, layer, weights, peaks, form=form, reduce_range=reduce_range)
            return [peak, energy, bench.change(layer.made, made, scale)[0]]

        return Tap(layer.made, build, 3)

    read = measure(model, [tap(layer) for layer in layers], batches, threads=threads, per_session=PER_SESSION)
    squares = np.maximum(read[:, 0::3], TINY) ** 2
    whole, lost = (read[:, 1::3] * squares).sum(axis=0), (read[:, 2::3] * squares).sum(axis=0)
    losses = np.sqrt(np.divide(lost, whole, out=np.zeros_like(lost), where=whole > 0))
    return {layer.name: float(loss) for layer, loss in zip(layers, losses, strict=True)}


def _in_int8(
    bench: Bench,
    layer: Layer,
    weights: Mapping[str, TensorProto],
    peaks: Mapping[str, float],
    *,
    form: Form,
    reduce_range: bool,
) -> str:
    """Compute a layer once more, in int8; returns the name of its output."""
    array = np.asarray(numpy_helper.to_array(weights[layer.weight]))
    numbers, steps = in_eight_bits(array, layer.axis, levels=FEWER_LEVELS if reduce_range else LEVELS)
    twin = NodeProto()
    twin.CopyFrom(layer.node)
    twin.name = bench.name()
    weight = bench.node("DequantizeLinear", _constant(bench, numbers), _constant(bench, steps), axis=layer.axis)
    twin.input[0], twin.input[1] = _rounded(bench, layer.given, peaks[layer.given]), weight
    twin.output[0] = bench.name()
    bench.nodes.append(twin)
    made = str(twin.output[0])
    return _rounded(bench, made, peaks[layer.made]) if layer.stores_output(form) else made


def _rounded(bench: Bench, tensor: str, peak: float) -> str:
    scale, zero = _constant(bench, scale_of(peak)), _constant(bench, np.asarray(0, np.int8))
    return bench.node("DequantizeLinear", bench.node("QuantizeLinear", tensor, scale, zero), scale, zero)


def _constant(bench: Bench, array: Array) -> str:
    name = bench.name()
    element = {"int8": INT8, "int64": int(TensorProto.INT64), "float32": FLOAT}[array.dtype.name]
    bench.weights[name] = raw_tensor(name, element, array)
    return name
