"""What each precision does to a graph, and what it says about it. How it does that: tests/export/precision."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from minddiffuser.export.graphs import NETWORK_GRAPHS
from minddiffuser.export.precision import emulate
from minddiffuser.export.precision.variants import INT8_ROUTES, Converted, in_precision

Build = Callable[..., ModelProto]
Run = Callable[..., dict[str, np.ndarray]]
RNG = np.random.default_rng(0)
BATCHES: list[Any] = [{"x": RNG.standard_normal((2, 64)).astype(np.float32)} for _ in range(2)]


@pytest.fixture
def product(build_rows: Build) -> ModelProto:
    """y = relu(x W) V; between the two a region that float16 cannot hold."""
    weights = {
        "w": RNG.standard_normal((64, 64)).astype(np.float32),
        "v": (RNG.standard_normal((64, 16)) / 8).astype(np.float32),
        "up": np.array(1e5, np.float32),
        "down": np.array(1e-5, np.float32),
    }
    nodes = [
        ("MatMul", "x w", "a"),
        ("Mul", "a up", "large"),
        ("Relu", "large", "b"),
        ("Mul", "b down", "c"),
        ("MatMul", "c v", "y"),
    ]
    return build_rows(nodes, {"x": ("batch", 64)}, {"y": ("batch", 16)}, weights)


def converted(model: ModelProto, graph: str, precision: str) -> Converted:
    found = in_precision([model], graph, precision, BATCHES, threads=1)
    assert found is not None
    return found


def test_float32_is_the_graph_itself(product: ModelProto) -> None:
    """Taken out of the list, so that nobody else holds weights of gigabytes."""
    models = [product]
    found = in_precision(models, "denoise", "fp32", BATCHES, threads=1)
    assert models == []
    assert found is not None
    assert found.models[0] is product
    assert (found.exceptions, found.note) == ([], "")


@pytest.mark.parametrize(("precision", "kind"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_half_precision_tells_what_it_left_out_and_why(
    product: ModelProto, run_file: Run, precision: str, kind: int
) -> None:
    before = product.SerializeToString()
    found = converted(product, "denoise", precision)
    assert product.SerializeToString() == before
    (model,) = found.models
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kind in types.values()
    layers = {exception["layer"] for exception in json.loads(json.dumps(found.exceptions))}
    if precision == "fp16":
        assert "Mul_1" in layers  # 1e5 times a number above 1 is more than 65,504
        for exception in found.exceptions:
            assert {"layer", "tensor", "rule", "measured"} <= set(exception)
    assert f"of {len(product.graph.node)} nodes stay in float32" in found.note
    assert found.note.startswith(f"{len(layers)} ")
    expected = run_file(product, BATCHES[0])["y"]
    y = run_file(emulate(model), BATCHES[0])["y"]
    assert np.abs(y - expected).max() < (0.01 if precision == "fp16" else 0.08) * np.abs(expected).max()


@pytest.mark.parametrize("graph", ["clip_structure", "denoise"])
def test_products_in_eight_bits_are_quantised_as_they_run(product: ModelProto, run_file: Run, graph: str) -> None:
    found = converted(product, graph, "int8")
    operators = {node.op_type for node in found.models[0].graph.node}
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= operators
    assert any(
        tensor.data_type in (TensorProto.INT8, TensorProto.UINT8) for tensor in found.models[0].graph.initializer
    )
    expected = run_file(product, BATCHES[0])["y"]
    assert np.abs(run_file(found.models[0], BATCHES[0])["y"] - expected).max() < 0.1 * np.abs(expected).max()
    assert found.note


def test_decoders_store_their_weights_in_eight_bits(build_rows: Build, run_file: Run) -> None:
    index = RNG.integers(0, 64, (1400, 50))  # 70,000 weights
    weights = {"index": index, "weight": RNG.standard_normal((1400, 50)).astype(np.float32), "axis": np.array([-1])}
    model = build_rows(
        [
            ("Gather", "x index", "g", {"axis": 1}),
            ("Mul", "g weight", "m"),
            ("ReduceSum", "m axis", "y", {"keepdims": 0}),
        ],
        {"x": ("batch", 64)},
        {"y": ("batch", 1400)},
        weights,
    )
    found = converted(model, "decode_latent", "int8")
    sizes = {tensor.data_type: len(tensor.raw_data) for tensor in found.models[0].graph.initializer}
    assert sizes.get(TensorProto.INT8, sizes.get(TensorProto.UINT8)) == 70_000
    by_hand = (BATCHES[0]["x"][:, index] * weights["weight"]).sum(-1)
    assert np.abs(run_file(found.models[0], BATCHES[0])["y"] - by_hand).max() < 0.02 * np.abs(by_hand).max()


def test_convolutions_are_calibrated_on_the_batches_given(build_rows: Build, run_file: Run) -> None:
    weights = {"k": RNG.standard_normal((8, 4, 3, 3)).astype(np.float32), "b": np.zeros(8, np.float32)}
    nodes = [("Conv", "x k b", "c", {"pads": [1, 1, 1, 1]}), ("Relu", "c", "y")]
    model = build_rows(nodes, {"x": ("batch", 4, 8, 8)}, {"y": ("batch", 8, 8, 8)}, weights)
    batches: list[Any] = [{"x": RNG.standard_normal((2, 4, 8, 8)).astype(np.float32)} for _ in range(2)]
    found = in_precision([model], "vae_decode", "int8", batches, threads=1)
    assert found is not None
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in found.models[0].graph.node}
    assert found.note.startswith("calibrated on decoded latents, error ")
    expected = run_file(model, batches[0])["y"]
    assert np.abs(run_file(found.models[0], batches[0])["y"] - expected).max() < 0.1 * expected.max()


def test_what_has_nothing_to_quantise_is_left_in_float32(build_rows: Build) -> None:
    """Such as a decoder of a few small rows: an export in int8 goes on without it."""
    model = build_rows([("Relu", "x", "y")], {"x": ("batch", 64)}, {"y": ("batch", 64)})
    for graph in ("decode_semantic", "denoise", "vae_decode"):
        assert in_precision([model], graph, "int8", BATCHES, threads=1) is None


@pytest.mark.parametrize("graph", [name for name in NETWORK_GRAPHS if name.endswith("_gradient")])
def test_gradients_have_no_eight_bits(product: ModelProto, graph: str) -> None:
    models = [product]
    assert in_precision(models, graph, "int8", BATCHES, threads=1) is None
    assert models == [product]


def test_every_other_graph_has_a_route_to_eight_bits() -> None:
    assert set(INT8_ROUTES) == {"decode", *(name for name in NETWORK_GRAPHS if not name.endswith("_gradient"))}


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_what_comes_out_is_a_valid_model(product: ModelProto, precision: str) -> None:
    model = converted(product, "denoise", precision).models[0]
    if precision != "int8":  # its quantised operators are ONNX Runtime's and ONNX's own alike
        onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["x"]
    assert [value.name for value in model.graph.output] == ["y"]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
