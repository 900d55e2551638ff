"""Which inputs and outputs of an operator may be 16-bit, by ONNX's own schemas and by what TensorRT builds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from onnx import ModelProto, NodeProto, TensorProto, defs, helper

from ...runtime.errors import InputError
from .formats import Half
from .onnx_tools import FLOAT, opset_of

# From this version on the schemas of Conv, InstanceNormalization, Sin and others take bfloat16. Between 20 and here
# only GroupNormalization has changed its meaning.
BFLOAT_OPSET, OLDEST_TO_RAISE = 22, 20

# ONNX allows them. TensorRT-RTX 1.7 builds no transposed convolution in bfloat16, and classic TensorRT's support matrix
# names float32 and float16 alone for the other two.
NOT_IN_TENSORRT = {"bfloat16": frozenset({"ConvTranspose", "Resize", "Upsample"}), "float16": frozenset[str]()}


@dataclass(frozen=True)
class Ports:
    """Whether each input and output of a node may be of the half type; meaningful only for its float32 tensors."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]


def ports_of(node: NodeProto, opset: int, half: Half) -> Ports:
    """What ONNX allows; nothing for an operator outside of ONNX's own domain."""
    allowed = (
        _allowed(node.op_type, opset, half.dtype, len(node.input), len(node.output))
        if node.domain in ("", "ai.onnx")
        else Ports((False,) * len(node.input), (False,) * len(node.output))
    )
    if node.op_type in ("LayerNormalization", "GroupNormalization"):  # mean and deviation are of the type stash_type
        return Ports(allowed.inputs, allowed.outputs[:1] + (False,) * (len(node.output) - 1))
    return allowed


@cache
def _allowed(operator: str, opset: int, dtype: str, n_inputs: int, n_outputs: int) -> Ports:
    if not defs.has(operator, opset):
        return Ports((False,) * n_inputs, (False,) * n_outputs)
    schema = defs.get_schema(operator, opset)
    variables = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}

    def may(parameters: list[defs.OpSchema.FormalParameter], count: int) -> tuple[bool, ...]:
        types = [variables.get(parameter.type_str, [parameter.type_str]) for parameter in parameters]
        last = [types[-1]] * (count - len(types)) if types else []  # the last one of a variadic operator repeats
        return tuple(f"tensor({dtype})" in names for names in (types + last)[:count])

    return Ports(may(list(schema.inputs), n_inputs), may(list(schema.outputs), n_outputs))


def forbidden(node: NodeProto, types: Mapping[str, int], opset: int, half: Half) -> str | None:
    """The tensor that makes a node stay in float32 whatever its numbers are; None where there is no such thing."""
    ports = ports_of(node, opset, half)
    makes = [(name, may) for name, may in zip(node.output, ports.outputs, strict=True) if _is_float(name, types)]
    takes = [(name, may) for name, may in zip(node.input, ports.inputs, strict=True) if _is_float(name, types)]
    if not makes and not takes:
        return None
    data = (takes or makes)[:1] + makes[:1]
    barred = [name for name, may in data if not may]
    if barred:
        return str(barred[0])
    if node.op_type in NOT_IN_TENSORRT[half.dtype] or _counts(node):
        return str(data[0][0])
    return None


def _is_float(name: str, types: Mapping[str, int]) -> bool:
    return bool(name) and types[name] == FLOAT


def _counts(node: NodeProto) -> bool:
    """Whether the node makes whole numbers out of float32 ones: an index or a size must not be off by one."""
    if node.op_type != "Cast":
        return False
    to = next(int(attribute.i) for attribute in node.attribute if attribute.name == "to")
    return to != TensorProto.BOOL and helper.tensor_dtype_to_np_dtype(to).kind in "iu"


def opset_for(model: ModelProto, half: Half) -> int:
    """The version of ONNX's operators that the half graph should use: higher than the model's only where that frees it.

    Raises
    ------
    InputError
        The graph needs newer operators than its version can simply be raised to.
    """
    now = opset_of(model)
    if now >= BFLOAT_OPSET or all(
        ports_of(node, now, half) == ports_of(node, BFLOAT_OPSET, half) for node in model.graph.node
    ):
        return now
    if now < OLDEST_TO_RAISE:
        raise InputError(
            f"the graph has operators of version {now}, in {half.dtype} they need version {BFLOAT_OPSET}: "
            f"export it with opset {OLDEST_TO_RAISE} or later"
        )
    if any(node.op_type == "GroupNormalization" and not node.domain for node in model.graph.node) and now < 21:
        return now
    return BFLOAT_OPSET
