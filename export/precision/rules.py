"""From measured ranges to the list of layers that stay in float32."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from ...runtime.errors import InputError
from .exemption import Exemption, Rule
from .formats import FP16, Half, half_of
from .onnx_tools import FLOAT, layer_name, refuse_unusual, tensor_types, with_constants_as_weights
from .operators import forbidden, opset_for
from .probe import HANDS_ON, Range

# What a layer in 16 bits may do. The largest size that a tensor may have been seen to reach in float16, half of the
# largest that float16 holds: the probe has seen a sample, and another trial may well reach twice as far. bfloat16 has
# float32's exponent and cannot overflow.
OVERFLOW_LIMIT = 65504 / 2
# The most that storing a tensor may cost, as a multiple of the type's unit (2^-11 for float16, 2^-8 for bfloat16).
# Rounding costs at most one unit wherever numbers are in the normal range, so a loss above 2 is proof that the tensor
# lives among the subnormal numbers (below 6e-5 in float16), where digits run out.
ROUNDING_LIMIT = 2.0
# The most that a layer may lose by having its inputs stored in 16 bits, in the same multiples. Layers with well-posed
# inputs lose about half a unit; 16 means that four binary digits (of float16's eleven, of bfloat16's eight) have gone
# in one layer, as in the difference of two nearly equal numbers or the exponential of a large one.
CARRIED_LIMIT = 16.0


@dataclass(frozen=True)
class _Broken:
    """A rule that a tensor breaks, for whichever layer it concerns."""

    tensor: str
    rule: Rule
    measured: float
    limit: float

    @property
    def times(self) -> float:
        return self.measured / self.limit if self.limit else float("inf")


def decide(ranges: Mapping[str, Range], model: ModelProto, precision: str) -> list[Exemption]:
    """The layers of a model that must stay in float32, in the graph's order, one entry each with its worst measurement.

    A layer stays when a tensor that it takes or makes breaks a rule in itself (too large, too small), when it is a mean
    whose sum is too large, when it loses too much because of what it takes, or when ONNX or TensorRT has no such layer
    in 16 bits. In the third case the layers that make those tensors stay with it, since what they had rounded could not
    be had back; unless one of the tensors breaks a rule in itself, which then is the reason.

    Parameters
    ----------
    ranges : mapping
        As :func:`probe` gives them, for this model and precision.
    model : ModelProto
        The float32 graph.
    precision : str
        "fp16" or "bf16".

    Raises
    ------
    InputError
        A tensor was not measured; an unknown precision; a graph with subgraphs.
    """
    half = half_of(precision)
    refuse_unusual(model)
    model = with_constants_as_weights(model)
    types, opset = tensor_types(model), opset_for(model, half)
    weights = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, list[_Broken]] = {}
    makers = {name: node for node in model.graph.node for name in node.output if name}
    for node in model.graph.node:
        reasons = found.setdefault(layer_name(node), [])
        barred = forbidden(node, types, opset, half)
        if barred is not None:
            reasons.append(_Broken(barred, "operator", 0.0, 0.0))
        for name in dict.fromkeys(name for name in (*node.input, *node.output) if name and types[name] == FLOAT):
            reasons += _of_tensor(name, _range(ranges, name, half), half, constant=name in weights)
        reasons += _of_sum(node, ranges, half)
        explained = any(broken.tensor in node.input for broken in reasons)
        for broken in _of_layer(node, ranges, half):
            reasons.append(broken)
            if explained:  # an input that stays in float32 for its own sake is what was lost: the others may round
                continue
            for maker, tensor in _makers_of_inputs(node, makers, types):
                found.setdefault(layer_name(maker), []).append(
                    _Broken(tensor, broken.rule, broken.measured, broken.limit)
                )
    return [_entry(node, reasons) for node in model.graph.node if (reasons := found[layer_name(node)])]


def _range(ranges: Mapping[str, Range], name: str, half: Half) -> Range | None:
    if name not in ranges:
        return None  # empty by its shape
    if half.precision not in ranges[name].rounding:
        raise InputError(f"the ranges were not measured for {half.precision}: probe the model for it")
    return ranges[name]


def _of_tensor(name: str, held: Range | None, half: Half, *, constant: bool) -> Iterator[_Broken]:
    if held is None:
        return
    if held.amiss and not constant:  # an infinite constant is a mask, and as infinite in 16 bits
        yield _Broken(name, "overflow", float(held.amiss), 0.0)
    if half is FP16 and held.peak > OVERFLOW_LIMIT:
        yield _Broken(name, "overflow", held.peak, OVERFLOW_LIMIT)
    limit = ROUNDING_LIMIT * half.unit
    if held.rounding[half.precision] > limit:
        yield _Broken(name, "rounding", min(held.rounding[half.precision], sys.float_info.max), limit)


def _of_sum(node: NodeProto, ranges: Mapping[str, Range], half: Half) -> Iterator[_Broken]:
    """Of a mean: ONNX Runtime's kernel on CUDA stores the sum in the type of the output before it divides."""
    for name in node.output:
        if half is FP16 and name in ranges and ranges[name].sum > OVERFLOW_LIMIT:
            yield _Broken(name, "overflow", ranges[name].sum, OVERFLOW_LIMIT)


def _of_layer(node: NodeProto, ranges: Mapping[str, Range], half: Half) -> Iterator[_Broken]:
    limit = CARRIED_LIMIT * half.unit
    for name in node.output:
        lost = ranges[name].carried.get(half.precision, 0.0) if name in ranges else 0.0
        if lost > limit:
            yield _Broken(name, "rounding", min(lost, sys.float_info.max), limit)


def _makers_of_inputs(
    node: NodeProto, makers: Mapping[str, NodeProto], types: Mapping[str, int]
) -> Iterator[tuple[NodeProto, str]]:
    """The layers that compute what a node takes, and those that hand it on to the node unchanged."""
    waiting, seen = [name for name in node.input if name and types[name] == FLOAT], set[str]()
    while waiting:
        name = waiting.pop(0)
        if name in seen or name not in makers:
            continue
        seen.add(name)
        maker = makers[name]
        yield maker, name
        if maker.op_type in HANDS_ON:
            waiting += [given for given in maker.input if given and types[given] == FLOAT]


def _entry(node: NodeProto, reasons: Sequence[_Broken]) -> Exemption:
    worst = max(reasons, key=lambda broken: (broken.rule == "operator", broken.times))
    return Exemption(
        layer=layer_name(node),
        operator=node.op_type,
        tensor=worst.tensor,
        rule=worst.rule,
        measured=worst.measured,
        limit=worst.limit,
    )
