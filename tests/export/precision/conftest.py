"""Small graphs whose numbers are known, and an interpreter of half precision that shares no code with the package."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

NUMPY = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
FREE = "n"


def build_model(
    nodes: Sequence[tuple],
    inputs: Mapping[str, Sequence],
    outputs: Collection[str],
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 20,
) -> ModelProto:
    """A model of (name, operator, inputs, outputs[, attributes]) rows; inputs and outputs are float32."""
    made = [
        helper.make_node(operator, given.split(), made.split(), name=name, **(rest[0] if rest else {}))
        for name, operator, given, made, *rest in nodes
    ]
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    for node in model.graph.node:
        node.input[:] = ["" if name == "_" else name for name in node.input]
    shaped = shape_inference.infer_shapes(model)  # the checker wants the outputs' shapes
    model.graph.ClearField("output")
    model.graph.output.extend(shaped.graph.output)
    return model


def run_model(model: ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def interpret(
    model: ModelProto, feeds: Mapping[str, np.ndarray], dtype: str, keep: Collection[str] = ()
) -> list[np.ndarray]:
    """Run node after node in float32; a node that is not kept sees and makes only numbers that `dtype` can hold."""

    def rounded(array: np.ndarray) -> np.ndarray:
        if array.dtype != np.float32:
            return array
        with np.errstate(over="ignore"):
            return array.astype(NUMPY[dtype]).astype(np.float32)

    values = {tensor.name: np.asarray(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    values |= dict(feeds)
    for node in model.graph.node:
        store = (lambda array: array) if node.name in keep else rounded
        names = [name for name in node.input if name]
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(values[n].dtype), None) for n in names],
            [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output],
        )
        one = ReferenceEvaluator(helper.make_model(graph, opset_imports=model.opset_import))
        made = one.run(None, {name: store(values[name]) for name in names})
        values |= {name: store(np.asarray(array)) for name, array in zip(node.output, made, strict=True)}
    return [values[output.name] for output in model.graph.output]


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    difference = found.astype(np.float64) - wanted.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(wanted.astype(np.float64)))


@pytest.fixture(scope="session")
def build() -> Callable[..., ModelProto]:
    return build_model


@pytest.fixture(scope="session")
def run() -> Callable[..., list[np.ndarray]]:
    return run_model


@pytest.fixture(scope="session")
def oracle() -> Callable[..., list[np.ndarray]]:
    return interpret


@pytest.fixture(scope="session")
def error() -> Callable[..., float]:
    return relative


@pytest.fixture
def network(rng: np.random.Generator) -> ModelProto:
    """Convolution, group norm, SiLU, upsampling, attention, layer norm, linear: what the real graphs consist of."""

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    weights = {
        "w1": normal(8, 3, 3, 3, scale=0.3),
        "b1": normal(8),
        "one": np.ones(2, np.float32),
        "zero": np.zeros(2, np.float32),
        "grouped": np.asarray([0, 2, -1], np.int64),
        "restored": np.asarray([0, 8, 4, 4], np.int64),
        "twice": np.asarray([1, 1, 2, 2], np.float32),
        "w2": normal(16, 8, 3, 3, scale=0.1),
        "b2": normal(16),
        "tokens": np.asarray([0, 16, -1], np.int64),
        "wq": normal(16, 16, scale=0.25),
        "wk": normal(16, 16, scale=0.25),
        "wv": normal(16, 16, scale=0.25),
        "root": np.asarray(0.25, np.float32),
        "axis": np.asarray([-1], np.int64),
        "eps": np.asarray(1e-3, np.float32),
        "two": np.asarray(2.0, np.float32),
        "wo": normal(5, 16, scale=0.25),
        "bo": normal(5, scale=0.1),
        "row": np.asarray([-1, 16], np.int64),
    }
    nodes = [
        ("conv1", "Conv", "x w1 b1", "c1", {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("group", "Reshape", "c1 grouped", "g1"),
        ("norm", "InstanceNormalization", "g1 one zero", "g2"),
        ("ungroup", "Reshape", "g2 restored", "g3"),
        ("sigmoid", "Sigmoid", "g3", "s"),
        ("silu", "Mul", "g3 s", "a"),
        ("up", "Resize", "a _ twice", "u", {"mode": "nearest"}),
        ("conv2", "Conv", "u w2 b2", "c2", {"pads": [1, 1, 1, 1]}),
        ("flat", "Reshape", "c2 tokens", "f"),
        ("tokens", "Transpose", "f", "t", {"perm": [0, 2, 1]}),
        ("query", "MatMul", "t wq", "q"),
        ("key", "MatMul", "t wk", "k"),
        ("value", "MatMul", "t wv", "v"),
        ("turn", "Transpose", "k", "kt", {"perm": [0, 2, 1]}),
        ("scores", "MatMul", "q kt", "qk"),
        ("scale", "Mul", "qk root", "qks"),
        ("softmax", "Softmax", "qks", "p", {"axis": -1}),
        ("attend", "MatMul", "p v", "o"),
        ("residual", "Add", "o t", "r"),
        ("mean", "ReduceMean", "r axis", "m"),
        ("centre", "Sub", "r m", "d"),
        ("square", "Pow", "d two", "d2"),
        ("variance", "ReduceMean", "d2 axis", "var"),
        ("guard", "Add", "var eps", "ve"),
        ("deviation", "Sqrt", "ve", "sd"),
        ("normal", "Div", "d sd", "ln"),
        ("rows", "Reshape", "ln row", "rows"),
        ("out", "Gemm", "rows wo bo", "y", {"transB": 1}),
    ]
    return build_model(nodes, {"x": [FREE, 3, 8, 8]}, ["y"], weights)


@pytest.fixture
def pictures(rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    """Two batches of two pictures."""
    return [{"x": rng.standard_normal((2, 3, 8, 8)).astype(np.float32)} for _ in range(2)]
