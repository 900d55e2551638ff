"""`decode_context`, `decode_latent`, …: responses to one target, as a gather and a weighted sum over chosen voxels.

Whatever kind a decoder was fitted with, a checkpoint holds it in this form (training/decoders/base.py). The weights
stay sparse: a dense matrix of the paper's latent decoder would have 11,694 x 16,384 entries, of which 4,000 per column
are used.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...runtime import graph_specs
from ...runtime.bundle_schema import DECODE
from ...runtime.checkpoint import read_target
from ...runtime.decode import Checkpoint
from ...runtime.engines.base import TensorSpec
from ..to_onnx import OPSET

# Weights gathered together: bounds the memory of one trial, 16 MB for voxels and as much for products.
_WEIGHTS_AT_ONCE = 1 << 22


def decode_specs(checkpoint: Checkpoint, target: str) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Inputs and outputs of a decode graph."""
    found = graph_specs.decode_specs((checkpoint.n_voxels,), target, checkpoint.shapes[target])
    return dict(found.inputs), dict(found.outputs)


def decode_model(checkpoint: Checkpoint, target: str) -> onnx.ModelProto:
    """Make `decode_<target>`: z-score by the training statistics, gather, weigh, put into the target's units.

    Parameters
    ----------
    target
        "context", "latent", "structure" or "semantic". Token 0 of the context is the constant of training captions.
    """
    arrays = read_target(checkpoint.folder, target, checkpoint.shapes[target], checkpoint.n_voxels)
    build = _Builder(target)
    scored = _z_scores(build, checkpoint)
    rows = []
    step = max(1, _WEIGHTS_AT_ONCE // arrays["index"].shape[1])
    n_targets = len(arrays["bias"])
    for number, start in enumerate(range(0, n_targets, step)):
        part = slice(start, start + step)
        index = build.constant(f"index_{number}", arrays["index"][part])
        weight = build.constant(f"weight_{number}", arrays["weight"][part])
        gathered = build.node("Gather", [scored, index], axis=1)
        products = build.node("Mul", [gathered, weight])
        rows.append(build.node("ReduceSum", [products, build.constant("last_axis", np.array([-1]))], keepdims=0))
    found = rows[0] if len(rows) == 1 else build.node("Concat", rows, axis=1)
    found = build.node("Add", [found, build.constant("bias", arrays["bias"])])
    _in_place(build, found, checkpoint, target, arrays)
    inputs, outputs = decode_specs(checkpoint, target)
    return build.model(inputs, outputs)


class _Builder:
    """Nodes and constants of one small graph."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, array: NDArray[Any]) -> str:
        name = f"{self._target}.{name}"
        self._constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"{operator.lower()}_{len(self._nodes)}"
        name = f"{DECODE}{self._target}/{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output

    def model(self, inputs: dict[str, TensorSpec], outputs: dict[str, TensorSpec]) -> onnx.ModelProto:
        def infos(specs: dict[str, TensorSpec]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s.shape)) for n, s in specs.items()]

        graph = helper.make_graph(
            self._nodes, DECODE + self._target, infos(inputs), infos(outputs), list(self._constants.values())
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="minddiffuser")
        model.ir_version = 10
        return model


def _z_scores(build: _Builder, checkpoint: Checkpoint) -> str:
    """(responses - mean) / std, and 0 for voxels that did not vary in training."""
    mean, std = checkpoint.statistics
    varies = std > 0
    centred = build.node("Sub", ["responses", build.constant("mean", mean)])
    scores = build.node("Div", [centred, build.constant("std", np.where(varies, std, 1).astype(np.float32))])
    if varies.all():
        return scores
    zero = build.constant("zero", np.zeros((), np.float32))
    return build.node("Where", [build.constant("varies", varies), scores, zero])


def _in_place(build: _Builder, found: str, checkpoint: Checkpoint, target: str, arrays: dict[str, Any]) -> None:
    """Scale to the target's units and set every predicted dimension to its place; the others hold their mean."""
    shape, position = checkpoint.shapes[target], arrays["position"]
    size = math.prod(shape)
    slot = np.full(size, -1, np.int64)
    slot[position] = np.arange(len(position))
    predicted = slot >= 0
    # A gather with the place of each dimension; those without a prediction read any and count with weight 0.
    spread = build.node(
        "Gather", [found, build.constant("slot", np.where(predicted, slot, 0).astype(np.int32))], axis=1
    )
    scale = np.where(predicted, arrays["target_std"], 0).astype(np.float32)
    offset = arrays["target_mean"].copy()
    if target == "context":
        width = shape[1]
        scale[:width], offset[:width] = 0, checkpoint.context_bos
    scaled = build.node("Mul", [spread, build.constant("scale", scale)])
    flat = build.node("Add", [scaled, build.constant("offset", offset)])
    build.node("Reshape", [flat, build.constant("shape", np.array([-1, *shape]))], output=target)
