"""Small ONNX models from a few rows of text, and ONNX Runtime without any of the package around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

Arrays = Mapping[str, np.ndarray]
Build = Callable[..., ModelProto]
Run = Callable[[Any, Arrays], dict[str, np.ndarray]]


def build_model(
    nodes: Sequence[tuple[Any, ...]],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    weights: Arrays | None = None,
    *,
    types: Mapping[str, int] | None = None,
) -> ModelProto:
    """A model of (operator, "inputs", "outputs"[, attributes]) rows; what `types` does not name is float32."""
    made = [
        helper.make_node(operator, given.split(), out.split(), name=f"{operator}_{number}", **(rest[0] if rest else {}))
        for number, (operator, given, out, *rest) in enumerate(nodes)
    ]

    def infos(shapes: Mapping[str, Sequence[int | str]]) -> list[Any]:
        kinds = types or {}
        return [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in shapes.items()]

    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(made, "graph", infos(inputs), infos(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run_onnx(model: Any, feeds: Arrays) -> dict[str, np.ndarray]:
    """Run a model, or the file at a path, as it is: without ONNX Runtime's own optimiser."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    source = model.SerializeToString() if isinstance(model, ModelProto) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@pytest.fixture(scope="session")
def build() -> Build:
    return build_model


@pytest.fixture(scope="session")
def run() -> Run:
    return run_onnx
