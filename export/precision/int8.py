"""Three ways to int8: dynamic (CPU), calibrated with the worst layers exempted, and weights alone."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ...runtime.errors import InputError
from .calibration import peaks_of
from .exemption import Exemption
from .measuring import Feeds
from .onnx_tools import (
    FLOAT,
    IN_MEMORY_BYTES,
    layer_name,
    opset_of,
    raw_tensor,
    refuse_unusual,
    size_of,
    with_constants_as_weights,
    without_weights,
    write_model,
)
from .qdq import Layer, quantisable, stored_tensors, with_qdq
from .quantising import in_eight_bits
from .sensitivity import losses_of, outputs_of, relative_error

OLDEST_OPSET = 13  # the first in which DequantizeLinear takes one scale per channel


class NothingToQuantise(InputError):
    """The graph has no layer that int8 would change."""


@dataclass(frozen=True)
class Quantised:
    """What :func:`calibrated` made.

    Attributes
    ----------
    model : the graph with QuantizeLinear and DequantizeLinear in it.
    exemptions : layers left in float32, the worst first; the limit of each is the loss of the worst layer in int8.
    error : largest relative error of an output, over the calibration batches.
    held : whether that is within the tolerance; if not, the budget was used up first.
    layers : names of the layers in int8.
    """

    model: ModelProto
    exemptions: list[Exemption]
    error: float
    held: bool
    layers: tuple[str, ...]


def dynamic(model: ModelProto) -> ModelProto:
    """ONNX Runtime's dynamic quantisation, for the CPU: weights in 7 bits, activations quantised as they come.

    Only MatMul and Gemm with a constant weight. A convolution is left alone, since ONNX Runtime has no kernel for the
    signed ConvInteger that this would make.

    Parameters
    ----------
    model : ModelProto
        A float32 graph with its weights inside. It is not changed.

    Raises
    ------
    InputError
        The graph is unusual (see :func:`onnx_tools.refuse_unusual`) or has no such layer.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = _checked(model)
    names = [layer.name for layer in quantisable(model) if layer.node.op_type in ("MatMul", "Gemm")]
    if not names:
        raise NothingToQuantise(
            "the graph has no MatMul or Gemm with a constant weight: int8 would change nothing in it"
        )
    for node in model.graph.node:
        node.name = layer_name(node)  # it picks layers by name
    large = sum(map(size_of, model.graph.initializer)) >= IN_MEMORY_BYTES
    with tempfile.TemporaryDirectory(prefix="minddiffuser-") as folder, _quiet():
        output = Path(folder) / "int8.onnx"
        quantize_dynamic(
            str(write_model(model, Path(folder))),
            str(output),
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=[*names, *(f"{name}_MatMul" for name in names)],  # it splits each Gemm before it picks
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )
        made = onnx.load(output)
    del made.metadata_props[:], made.graph.value_info[:]
    made.producer_name, made.producer_version = model.producer_name, model.producer_version
    return made


def calibrated(
    model: ModelProto, batches: Iterable[Feeds], *, tolerance: float = 0.1, budget: float = 0.3, threads: int = 1
) -> Quantised:
    """Conv, MatMul and Gemm with constant weights in int8 (signed, symmetric, one scale per output channel).

    If the outputs are further from float32 than the tolerance with all layers in int8, what each layer alone loses in
    its own output is measured on the float32 graph, and those that lose most are exempted: as few of them as the
    tolerance asks for, at most `budget`.

    Parameters
    ----------
    model : ModelProto
        A float32 graph with its weights inside. It is not changed.
    batches : iterable of dict of array
        Real inputs: brain-decoded features and latents.
    tolerance : float
        Largest relative error of any output, ``||q - f|| / ||f||`` over all batches; layers are exempted until it
        holds.
    budget : float
        Share of the layers that may be exempted, 0 to 1.
    threads : int
        Of the runs that measure.

    Raises
    ------
    InputError
        No batch; no layer to quantise; the float32 graph itself gives NaN or infinity; an unusual graph.
    """
    runs = list(batches)
    model = _checked(model)
    layers = quantisable(model)
    if not layers:
        raise NothingToQuantise(
            "the graph has no Conv, MatMul or Gemm with a constant weight: int8 would change nothing in it"
        )
    peaks = peaks_of(model, stored_tensors(layers), runs, threads=threads)
    expected = outputs_of(model, runs, threads)

    def attempt(kept: Collection[str]) -> tuple[ModelProto, float]:
        chosen = [layer for layer in layers if layer.name not in kept]
        made = with_qdq(model, chosen, peaks)
        return made, relative_error(outputs_of(made, runs, threads), expected)

    made, error = attempt(())
    if error <= tolerance:
        return Quantised(made, [], error, True, tuple(layer.name for layer in layers))
    losses = losses_of(model, layers, peaks, runs, threads=threads)
    ranked = sorted(layers, key=lambda layer: -losses[layer.name])
    most = int(budget * len(layers))
    count = _fewest(most, lambda n: attempt({x.name for x in ranked[:n]})[1] <= tolerance)
    made, error = attempt({layer.name for layer in ranked[:count]})
    quantised = tuple(layer.name for layer in layers if layer not in ranked[:count])
    return Quantised(made, _exemptions(ranked, count, losses), error, error <= tolerance, quantised)


def weights_only(model: ModelProto, *, smallest: int = 2**16, keep: Collection[str] = ()) -> ModelProto:
    """Large constant matrices in int8, one scale per row (axis 0); all computing stays in float32.

    For graphs without MatMul, such as a decoder that gathers voxels and sums them with weights: the file shrinks to a
    quarter of the weights. While it runs, the float32 numbers exist as well.

    Parameters
    ----------
    model : ModelProto
        A float32 graph with its weights inside. It is not changed.
    smallest : int
        Elements from which on a weight counts as large.
    keep : collection of str
        Names of weights that stay as they are.

    Raises
    ------
    InputError
        The graph is unusual (see :func:`onnx_tools.refuse_unusual`) or has no such weight.
    """
    model = _checked(model)
    inputs = {value.name for value in (*model.graph.input, *model.graph.output)} | set(keep)
    result = without_weights(model)
    nodes = list(result.graph.node)
    del result.graph.node[:]
    for tensor in model.graph.initializer:
        count = int(np.prod(tensor.dims, dtype=np.int64))
        if tensor.data_type != FLOAT or len(tensor.dims) < 2 or count < smallest or tensor.name in inputs:
            result.graph.initializer.append(tensor)
            continue
        numbers, scales = in_eight_bits(np.asarray(numpy_helper.to_array(tensor)), 0)
        names = [f"{tensor.name}:int8", f"{tensor.name}:scale"]
        result.graph.initializer.append(raw_tensor(names[0], int(TensorProto.INT8), numbers))
        result.graph.initializer.append(raw_tensor(names[1], FLOAT, scales))
        load = helper.make_node("DequantizeLinear", names, [tensor.name], name=f"{tensor.name}:dequantise", axis=0)
        result.graph.node.append(load)
    if not result.graph.node:
        raise NothingToQuantise(
            f"the graph has no matrix of {smallest} float32 numbers or more: int8 weights would change nothing in it"
        )
    result.graph.node.extend(nodes)
    return result


def _checked(model: ModelProto) -> ModelProto:
    refuse_unusual(model)
    if opset_of(model) < OLDEST_OPSET:
        raise InputError(
            f"the graph has operators of version {opset_of(model)}, int8 needs {OLDEST_OPSET}: "
            "export it with a later opset"
        )
    return with_constants_as_weights(model)


def _fewest(most: int, holds: Callable[[int], bool]) -> int:
    """How many of the worst layers to exempt: doubled until the tolerance holds or the budget ends, then halved in on.

    Exempting more does not always help, so this finds a small number, not surely the smallest.
    """
    low, high = 0, 1
    while high < most and not holds(high):
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _exemptions(ranked: Sequence[Layer], count: int, losses: Mapping[str, float]) -> list[Exemption]:
    limit = losses[ranked[count].name] if count < len(ranked) else 0.0
    return [
        Exemption(
            layer=layer.name,
            operator=layer.node.op_type,
            tensor=layer.made,
            rule="quantisation",
            measured=losses[layer.name],
            limit=limit,
        )
        for layer in ranked[:count]
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that ONNX Runtime's quantiser logs on every call."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
