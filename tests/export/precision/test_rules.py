import json
from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from minddiffuser.export.precision import rules
from minddiffuser.export.precision.probe import probe
from minddiffuser.export.precision.rules import decide
from minddiffuser.runtime.errors import InputError

Build = Callable[..., ModelProto]


def kept(model: ModelProto, feeds: dict[str, np.ndarray], precision: str = "fp16") -> dict[str, dict]:
    found = decide(probe(model, [feeds], threads=1), model, precision)
    json.dumps(found, allow_nan=False)
    assert len({entry["layer"] for entry in found}) == len(found)
    return {entry["layer"]: dict(entry) for entry in found}


def test_the_one_layer_that_overflows_is_kept(build: Build, rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((6, 8)).astype(np.float32), rng.standard_normal((8, 8)).astype(np.float32)
    nodes = [
        ("first", "MatMul", "x w", "a"),
        ("bend", "Tanh", "a", "b"),
        ("large", "Mul", "b big", "c"),
        ("huge", "Mul", "c big", "y"),
    ]
    found = kept(build(nodes, {"x": ["n", 8]}, ["y"], {"w": w, "big": np.float32(200)}), {"x": x})
    measured = found["huge"]["measured"]
    assert list(found.values()) == [
        {"layer": "huge", "operator": "Mul", "tensor": "y", "rule": "overflow", "measured": measured, "limit": 32752.0}
    ]
    assert measured == pytest.approx(np.abs(np.tanh(x @ w)).max() * 40000, rel=1e-5)


def test_a_tensor_that_overflows_between_layers_keeps_both(build: Build, rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 8)).astype(np.float32)
    w = (30000 * rng.standard_normal((8, 8))).astype(np.float32)
    w = np.clip(w, -32000, 32000)
    nodes = [("first", "MatMul", "x w", "a"), ("bend", "Tanh", "a", "b"), ("last", "Neg", "b", "y")]
    found = kept(build(nodes, {"x": ["n", 8]}, ["y"], {"w": w}), {"x": x})
    assert found.keys() == {"first", "bend"}
    peak = np.abs(x @ w).max()
    assert all((e["tensor"], e["rule"]) == ("a", "overflow") for e in found.values())
    assert all(e["measured"] == pytest.approx(peak, rel=1e-6) for e in found.values())


@pytest.mark.parametrize(("n", "expected"), [(16_000, []), (17_000, ["mean"])])
def test_a_mean_whose_sum_overflows_is_kept(build: Build, n: int, expected: list[str]) -> None:
    """ONNX Runtime on CUDA holds the sum in the type of the mean: 2 n against half of float16's 65504."""
    model = build(
        [("mean", "ReduceMean", "x axis", "m"), ("shift", "Neg", "m", "y")],
        {"x": ["n", n]},
        ["y"],
        {"axis": np.asarray([1], np.int64)},
    )
    x = np.full((3, n), 2, np.float32)
    found = kept(model, {"x": x})
    assert list(found) == expected
    if expected:
        assert (found["mean"]["tensor"], found["mean"]["rule"]) == ("m", "overflow")
        assert found["mean"]["measured"] == 2 * n
    assert not kept(model, {"x": x}, "bf16")


def test_bfloat16_does_not_overflow(build: Build, rng: np.random.Generator) -> None:
    x = (1e20 * rng.standard_normal((6, 8))).astype(np.float32)
    assert not kept(build([("n", "Neg", "x", "y")], {"x": ["n", 8]}, ["y"]), {"x": x}, "bf16")
    assert kept(build([("n", "Neg", "x", "y")], {"x": ["n", 8]}, ["y"]), {"x": x}, "fp16")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_difference_of_near_equals_keeps_what_makes_them(
    build: Build, rng: np.random.Generator, precision: str
) -> None:
    x = (100 + 0.1 * rng.standard_normal((4, 32))).astype(np.float32)
    nodes = [
        ("double", "Add", "x x", "a"),
        ("turn", "Transpose", "a", "t"),
        ("mean", "ReduceMean", "t axis", "m"),
        ("centre", "Sub", "t m", "d"),
        ("bend", "Tanh", "d", "y"),
    ]
    model = build(nodes, {"x": ["n", 32]}, ["y"], {"axis": np.asarray([0], np.int64)})
    found = kept(model, {"x": x}, precision)
    assert found.keys() == {"double", "turn", "mean", "centre"}  # the Tanh sees well-posed numbers
    assert found["centre"]["rule"] == "rounding"
    assert found["centre"]["tensor"] == "d"
    assert found["double"]["measured"] == found["centre"]["measured"] > found["centre"]["limit"]


def test_a_normalised_gradient_is_in_float32_only_until_it_is_normalised(
    build: Build, rng: np.random.Generator
) -> None:
    """The gradient would vanish in float16: its scaling up and down stays in float32, what is between does not."""
    g = (1e-9 * rng.standard_normal((4, 8))).astype(np.float32)
    nodes = [
        ("up", "Mul", "g large", "a"),
        ("work", "MatMul", "a w", "b"),
        ("bend", "Neg", "b", "c"),
        ("down", "Mul", "c small", "y"),
    ]
    weights = {
        "large": np.float32(2.0**30),
        "small": np.float32(2.0**-30),
        "w": rng.standard_normal((8, 8)).astype(np.float32),
    }
    found = kept(build(nodes, {"g": ["n", 8]}, ["y"], weights), {"g": g})
    assert found.keys() == {"up", "down"}


def test_operators_without_a_half_form_are_kept(build: Build) -> None:
    nodes = [
        ("range", "Range", "start stop step", "r"),
        ("plus", "Add", "x r", "a"),
        ("whole", "Cast", "a", "i", {"to": TensorProto.INT64}),
        ("back", "Cast", "i", "y", {"to": TensorProto.FLOAT}),
    ]
    weights = {"start": np.float32(0), "stop": np.float32(4), "step": np.float32(1)}
    model = build(nodes, {"x": ["n", 4]}, ["y"], weights)
    for precision in ("fp16", "bf16"):
        found = kept(model, {"x": np.ones((2, 4), np.float32)}, precision)
        assert {name: entry["rule"] for name, entry in found.items()} == {"range": "operator", "whole": "operator"}


def test_bfloat16_resize_is_kept_and_convolution_is_not(
    network: ModelProto, pictures: list[dict[str, np.ndarray]]
) -> None:
    ranges = probe(network, pictures, threads=1)
    entries = {entry["layer"]: entry["rule"] for entry in decide(ranges, network, "bf16")}
    assert entries == {"up": "operator"}
    assert decide(ranges, network, "fp16") == []


def test_nan_in_float32_is_reported(build: Build) -> None:
    model = build([("log", "Log", "x", "l"), ("last", "Neg", "l", "y")], {"x": ["n"]}, ["y"])
    found = kept(model, {"x": np.asarray([-1.0, -2.0, 1.0], np.float32)})
    assert (found["log"]["rule"], found["log"]["measured"], found["log"]["limit"]) == ("overflow", 2.0, 0.0)


def test_an_infinite_constant_is_a_mask(build: Build) -> None:
    nodes = [("mask", "Where", "m x none", "a"), ("share", "Softmax", "a", "y")]
    weights = {"none": np.float32(-np.inf), "m": np.asarray([True, True, False])}
    found = kept(build(nodes, {"x": ["n", 3]}, ["y"], weights), {"x": np.ones((2, 3), np.float32)})
    assert found["mask"]["tensor"] == "a"  # its output is listed, the constant itself is not
    assert found["mask"]["measured"] == 2


def test_stricter_rules_keep_more(
    network: ModelProto, pictures: list[dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges = probe(network, pictures, threads=1)
    counts = []
    for limit in (1e4, 5.0, 1.0, 1e-3):
        monkeypatch.setattr(rules, "OVERFLOW_LIMIT", limit)
        counts.append(len(decide(ranges, network, "fp16")))
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[1] < counts[3]


def test_refusals(network: ModelProto, pictures: list[dict[str, np.ndarray]]) -> None:
    ranges = probe(network, pictures[:1], threads=1, precisions=["fp16"])
    with pytest.raises(InputError, match="not measured for bf16"):
        decide(ranges, network, "bf16")
    with pytest.raises(InputError, match="'int4' is unknown"):
        decide(ranges, network, "int4")
