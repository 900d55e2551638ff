import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from minddiffuser.export.precision import calibrated, dynamic, onnx_tools, weights_only
from minddiffuser.runtime.errors import InputError

Build = Callable[..., ModelProto]
Run = Callable[..., list[np.ndarray]]
Error = Callable[..., float]
Batches = list[dict[str, np.ndarray]]
LAYERS = {"conv1", "conv2", "query", "key", "value", "out"}


def counts(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def weight(model: ModelProto, name: str) -> np.ndarray:
    return next(np.asarray(numpy_helper.to_array(t)) for t in model.graph.initializer if t.name == name)


def scaled(model: ModelProto, name: str, factor: float) -> ModelProto:
    """The model with one scale made wrong."""
    broken = ModelProto()
    broken.CopyFrom(model)
    (tensor,) = [tensor for tensor in broken.graph.initializer if tensor.name == name]
    array = np.asarray(numpy_helper.to_array(tensor)) * np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
    return broken


def all_in_int8(model: ModelProto, batches: Batches) -> ModelProto:
    made = calibrated(model, batches, tolerance=1e9)
    assert made.held
    assert not made.exemptions
    return made.model


# Dynamic


def test_dynamic_touches_linear_layers_alone(network: ModelProto, pictures: Batches, run: Run, error: Error) -> None:
    made = dynamic(network)
    onnx.checker.check_model(made)
    assert counts(made)["MatMulInteger"] == 4  # query, key, value, out
    assert counts(made)["Conv"] == 2
    assert counts(made)["ConvInteger"] == 0
    assert counts(made)["MatMul"] == 2  # those without a constant
    assert error(run(made, pictures[0])[0], run(network, pictures[0])[0]) < 0.05
    (scale,) = [t.name for t in made.graph.initializer if t.name.startswith("wo") and t.name.endswith("_scale")]
    broken = scaled(made, scale, 1.1)
    assert error(run(broken, pictures[0])[0], run(network, pictures[0])[0]) > 0.05


def test_dynamic_is_within_half_a_step_of_the_product(build: Build, run: Run, rng: np.random.Generator) -> None:
    """One linear layer: the error bound follows from the steps of weight (7 bits) and activation (8 bits)."""
    x, w = rng.standard_normal((5, 32)).astype(np.float32), rng.standard_normal((32, 6)).astype(np.float32)
    model = build([("mix", "MatMul", "x w", "y")], {"x": ["n", 32]}, ["y"], {"w": w})
    found = run(dynamic(model), {"x": x})[0]
    step_w, step_x = np.abs(w).max(axis=0) / 64, (x.max() - x.min()) / 255
    bound = np.abs(x).sum(axis=1, keepdims=True) * step_w / 2 + np.abs(w).sum(axis=0) * step_x
    assert np.all(np.abs(found - x @ w) < bound + 32 * step_w * step_x)
    assert np.abs(found - x @ w).max() > 0


# Calibrated


def test_calibrated_is_near_float(network: ModelProto, pictures: Batches, run: Run, error: Error) -> None:
    made = all_in_int8(network, pictures)
    onnx.checker.check_model(made, full_check=True)
    tolerance = 0.03  # six layers, each within half of 1/64 of its largest number
    assert error(run(made, pictures[0])[0], run(network, pictures[0])[0]) < tolerance
    broken = scaled(made, "rows:scale", 1 / 4)
    assert error(run(broken, pictures[0])[0], run(network, pictures[0])[0]) > tolerance


def test_scales_are_those_of_the_largest_numbers(network: ModelProto, pictures: Batches) -> None:
    made = all_in_int8(network, pictures)
    x = np.concatenate([batch["x"] for batch in pictures])
    # Of some thousand numbers the largest is within 99.99 per cent; a histogram of 2048 bins tells it to one bin.
    np.testing.assert_allclose(weight(made, "x:scale"), np.abs(x).max() / 127, rtol=2 / 2048)
    w = weight(network, "w1")
    np.testing.assert_array_equal(weight(made, "w1:scale"), np.abs(w).max(axis=(1, 2, 3)) / np.float32(64))
    restored = weight(made, "w1:int8") * weight(made, "w1:scale")[:, None, None, None]
    assert np.all(np.abs(restored - w) <= weight(made, "w1:scale")[:, None, None, None] * 0.5001)
    for name in ("w1", "wq", "wo"):  # in seven bits
        assert np.abs(weight(made, f"{name}:int8").astype(int)).max() == 64
    transposed, plain = weight(made, "wo:scale"), weight(made, "wq:scale")
    assert (transposed.shape, plain.shape) == ((5,), (16,))  # Gemm's weight is stored transposed, MatMul's is not


def test_what_is_quantised(network: ModelProto, pictures: Batches) -> None:
    made = all_in_int8(network, pictures)
    # Activations: x, u, t (shared by three), rows; and what convolutions and MatMuls make.
    assert counts(made)["QuantizeLinear"] == 4 + 2 + 3
    assert counts(made)["DequantizeLinear"] == 9 + 6 + 3
    biases = {t.name for t in made.graph.initializer if t.data_type == TensorProto.INT32}
    assert biases == {f"{name}:bias:{part}" for name in ("conv1", "conv2", "out") for part in ("int8", "zero")}
    zeros = [t for t in made.graph.initializer if t.name.endswith(":zero")]
    assert not any(np.any(numpy_helper.to_array(t)) for t in zeros)
    assert not {"w1", "w2", "wq", "wo"} & {t.name for t in made.graph.initializer}


def optimised(model: ModelProto, path: Path) -> Counter[str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return counts(onnx.load(path))


def test_onnx_runtime_has_integer_kernels_for_it(
    network: ModelProto, pictures: Batches, build: Build, rng: np.random.Generator, tmp_path: Path
) -> None:
    fused = optimised(all_in_int8(network, pictures), tmp_path / "network.onnx")
    assert fused["QLinearConv"] == 2
    assert fused["Conv"] == 0
    nodes = [
        ("one", "MatMul", "x w", "a"),
        ("bend", "Tanh", "a", "b"),
        ("two", "MatMul", "b w", "c"),
        ("shift", "Add", "c bias", "d"),
        ("three", "Gemm", "d w bias", "y"),
    ]
    weights = {"w": rng.standard_normal((8, 8)).astype(np.float32), "bias": np.ones(8, np.float32)}
    linear = build(nodes, {"x": ["n", 8]}, ["y"], weights)
    fused = optimised(
        all_in_int8(linear, [{"x": rng.standard_normal((9, 8)).astype(np.float32)}]), tmp_path / "linear.onnx"
    )
    assert (fused["QLinearMatMul"], fused["QGemm"], fused["MatMul"], fused["Gemm"]) == (2, 1, 0, 0)


@pytest.fixture
def with_a_fragile_layer(build: Build, rng: np.random.Generator) -> ModelProto:
    """Four linear layers; one column of the input of "fragile" is 60 times the others, which int8 then loses."""

    def mixer() -> np.ndarray:
        return np.linalg.qr(rng.standard_normal((16, 16)))[0].astype(np.float32)

    uneven = np.ones(16, np.float32)
    uneven[3] = 60
    nodes = [
        ("first", "MatMul", "x w1", "a"),
        ("bend1", "Tanh", "a", "b"),
        ("stretch", "Mul", "b uneven", "c"),
        ("fragile", "MatMul", "c w2", "d"),
        ("bend2", "Tanh", "d", "e"),
        ("third", "MatMul", "e w3", "f"),
        ("bend3", "Tanh", "f", "g"),
        ("last", "MatMul", "g w4", "y"),
    ]
    weights = {f"w{i}": mixer() for i in range(1, 5)} | {"uneven": uneven}
    weights["w2"][3] = 0  # the large column itself does not matter
    return build(nodes, {"x": ["n", 16]}, ["y"], weights)


def test_the_layer_that_loses_most_is_exempted(
    with_a_fragile_layer: ModelProto, rng: np.random.Generator, run: Run, error: Error
) -> None:
    model = with_a_fragile_layer
    batches = [{"x": rng.standard_normal((32, 16)).astype(np.float32)} for _ in range(2)]
    made = calibrated(model, batches, tolerance=0.05, budget=0.5)
    assert made.held
    assert [(entry["layer"], entry["rule"], entry["tensor"]) for entry in made.exemptions] == [
        ("fragile", "quantisation", "d")
    ]
    assert set(made.layers) == {"first", "third", "last"}

    x = np.concatenate([batch["x"] for batch in batches])
    c, w = np.tanh(x @ weight(model, "w1")) * weight(model, "uneven"), weight(model, "w2")
    step_c, step_w = np.abs(c).max() / 127, np.abs(w).max(axis=0) / 64
    in_int8 = (np.rint(c / step_c) * step_c) @ (np.rint(w / step_w) * step_w)
    step_d = np.abs(c @ w).max() / 127
    in_int8 = np.clip(np.rint(in_int8 / step_d), -128, 127) * step_d
    assert made.exemptions[0]["measured"] == pytest.approx(error(in_int8, c @ w), rel=0.01)
    assert made.exemptions[0]["limit"] < 0.05 < made.exemptions[0]["measured"]
    found, wanted = ([run(m, batch)[0] for batch in batches] for m in (made.model, model))
    assert made.error == pytest.approx(error(np.concatenate(found), np.concatenate(wanted)), rel=1e-6)


def test_a_budget_ends_the_exemptions(network: ModelProto, pictures: Batches) -> None:
    for budget, count in ((0.0, 0), (0.5, 3), (1.0, 6)):
        made = calibrated(network, pictures, tolerance=1e-12, budget=budget)
        assert len(made.exemptions) == count
        measured = [entry["measured"] for entry in made.exemptions]
        assert measured == sorted(measured, reverse=True)
        assert {entry["layer"] for entry in made.exemptions} | set(made.layers) == LAYERS
        assert made.held == (budget == 1.0)  # nothing is left in int8 then


def test_calibration_refuses(network: ModelProto, pictures: Batches, build: Build) -> None:
    with pytest.raises(InputError, match="no batch"):
        calibrated(network, [])
    with pytest.raises(InputError, match=r"'x' is NaN or infinite 1 times.*check these inputs"):
        calibrated(network, [{"x": np.where(np.arange(192).reshape(1, 3, 8, 8) == 5, np.nan, 1).astype(np.float32)}])
    for refused in (dynamic, weights_only, lambda model: calibrated(model, pictures)):
        with pytest.raises(InputError, match="would change nothing"):
            refused(build([("n", "Neg", "x", "y")], {"x": ["n"]}, ["y"]))
        with pytest.raises(InputError, match="int8 needs 13"):
            refused(build([("n", "Neg", "x", "y")], {"x": ["n"]}, ["y"], opset=12))


# Weights alone


def test_weights_only_are_within_half_a_step(build: Build, run: Run, rng: np.random.Generator) -> None:
    """A decoder as voxels gathered and summed with weights, rows of very different size."""
    w = (rng.standard_normal((40, 8)) * 10.0 ** rng.integers(-3, 3, (40, 1))).astype(np.float32)
    w[7] = 0
    weights = {
        "w": w,
        "small": np.ones((2, 8), np.float32),
        "picked": rng.integers(0, 50, (40, 8)),
        "last": np.asarray([-1], np.int64),
        "bias": rng.standard_normal(40).astype(np.float32),
    }
    nodes = [
        ("gather", "Gather", "x picked", "g", {"axis": 1}),
        ("weigh", "Mul", "g w", "p"),
        ("sum", "ReduceSum", "p last", "s", {"keepdims": 0}),
        ("shift", "Add", "s bias", "y"),
    ]
    model = build(nodes, {"x": ["n", 50]}, ["y"], weights)
    made = weights_only(model, smallest=100)
    onnx.checker.check_model(made, full_check=True)
    assert counts(made)["DequantizeLinear"] == 1
    assert made.ByteSize() < model.ByteSize()
    x = rng.standard_normal((3, 50)).astype(np.float32)
    found, wanted = run(made, {"x": x})[0], run(model, {"x": x})[0]
    bound = np.abs(x[:, weights["picked"]]).sum(axis=2) * np.abs(w).max(axis=1) / 127 / 2
    assert np.all(np.abs(found - wanted) <= bound * 1.001 + 1e-5)
    assert np.any(np.abs(run(scaled(made, "w:scale", 1.02), {"x": x})[0] - wanted) > bound * 1.001 + 1e-5)
    np.testing.assert_array_equal(found[:, 7], wanted[:, 7])


# Bytes

SCRIPT = """
import hashlib, sys, numpy as np, onnx
from minddiffuser.export.precision import calibrated, dynamic
model = onnx.load(sys.argv[1])
batches = [{"x": np.random.default_rng(3).standard_normal((2, 3, 8, 8)).astype(np.float32)}]
made = [dynamic(model), calibrated(model, batches, tolerance=0.02).model]
print(*(hashlib.sha256(m.SerializeToString(deterministic=True)).hexdigest() for m in made))
"""


def test_same_bytes_in_every_process(network: ModelProto, tmp_path: Path) -> None:
    onnx.save(network, tmp_path / "g.onnx")
    printed = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "g.onnx")],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert printed[0] == printed[1]
    assert len(printed[0].split()) == 2
    assert len(printed[0].split()[0]) == len(hashlib.sha256().hexdigest())


def test_models_of_gigabytes_go_through_files(
    network: ModelProto, pictures: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = [dynamic(network), all_in_int8(network, pictures)]
    monkeypatch.setattr(onnx_tools, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("minddiffuser.export.precision.int8.IN_MEMORY_BYTES", 0)
    large = [dynamic(network), all_in_int8(network, pictures)]
    for one, other in zip(plain, large, strict=True):
        assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
