from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from minddiffuser.export.precision import measuring, onnx_tools
from minddiffuser.export.precision.probe import Range, probe
from minddiffuser.runtime.errors import InputError

Build = Callable[..., ModelProto]
TYPES = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}


def loss(array: np.ndarray, precision: str) -> float:
    """Relative rounding loss, in float64, of the numbers that fit."""
    largest = float(ml_dtypes.finfo(TYPES[precision]).max)
    fits = array[np.isfinite(array) & (np.abs(array) <= largest)].astype(np.float64)
    lost = fits - fits.astype(np.float32).astype(TYPES[precision]).astype(np.float64)
    return float(np.linalg.norm(lost) / np.linalg.norm(fits))


@pytest.fixture
def chain(build: Build) -> ModelProto:
    """x -> 3x -> 3x + 1: two tensors whose every element numpy knows exactly."""
    weights = {"three": np.float32(3.0), "one": np.float32(1.0)}
    return build([("times", "Mul", "x three", "t"), ("plus", "Add", "t one", "y")], {"x": ["n", 4]}, ["y"], weights)


@pytest.mark.parametrize("size", [1e-6, 1.0, 3e4])
def test_every_tensor_is_measured_as_numpy_measures_it(
    chain: ModelProto, size: float, rng: np.random.Generator
) -> None:
    batches = [(size * rng.standard_normal((n, 4))).astype(np.float32) for n in (3, 50)]
    ranges = probe(chain, [{"x": batch} for batch in batches], threads=1)
    whole = np.concatenate(batches)
    values = {"x": whole, "t": whole * np.float32(3), "y": whole * np.float32(3) + np.float32(1)}
    assert ranges.keys() == {*values, "three", "one"}
    for name, value in values.items():
        assert ranges[name].peak == np.abs(value).max()
        assert ranges[name].amiss == 0
        for precision in TYPES:
            assert ranges[name].rounding[precision] == pytest.approx(loss(value, precision), rel=1e-5)


def test_what_a_layer_loses_by_its_inputs_is_what_numpy_finds(chain: ModelProto, rng: np.random.Generator) -> None:
    x = (rng.standard_normal((20, 4)) - 0.01).astype(np.float32)
    t = x * np.float32(3)
    ranges = probe(chain, [{"x": x}], threads=1)
    for precision, dtype in TYPES.items():
        made = t.astype(dtype).astype(np.float32) + np.float32(1)
        exact = t + np.float32(1)
        wanted = np.linalg.norm((made - exact).astype(np.float64)) / np.linalg.norm(exact.astype(np.float64))
        assert ranges["y"].carried[precision] == pytest.approx(wanted, rel=1e-5)
    assert not ranges["x"].carried
    assert not ranges["three"].carried


def test_weights_are_measured_as_well(build: Build, rng: np.random.Generator) -> None:
    weight = (1e-6 * rng.standard_normal((4, 5))).astype(np.float32)
    weight[0] = [1e5, np.inf, 1.0, 0.0, -2.0]
    model = build([("mix", "MatMul", "x w", "y")], {"x": ["n", 4]}, ["y"], {"w": weight})
    seen = probe(model, [{"x": np.ones((2, 4), np.float32)}], threads=1)["w"]
    assert (seen.peak, seen.amiss) == (1e5, 1)
    for precision in TYPES:
        assert seen.rounding[precision] == pytest.approx(loss(weight, precision), rel=1e-5)


def test_numbers_that_are_none_are_counted_and_hide_nothing(build: Build) -> None:
    model = build([("log", "Log", "x", "l"), ("copy", "Neg", "l", "y")], {"x": ["n"]}, ["y"])
    x = np.asarray([-1.0, 0.0, 1e-8, np.e], np.float32)  # logarithms: NaN, -inf, -18.4, 1
    seen = probe(model, [{"x": x}, {"x": x[2:]}], threads=1)["l"]
    assert seen.amiss == 2
    assert seen.peak == np.abs(np.log(x[2]))
    assert seen.rounding["fp16"] == pytest.approx(loss(np.log(x[2:]), "fp16"), rel=1e-5)
    assert np.isinf(seen.carried["fp16"])  # 1e-8 is 0 in float16, and its logarithm is none


def test_overflowing_elements_are_left_to_the_peak(build: Build) -> None:
    model = build([("copy", "Neg", "x", "y")], {"x": ["n"]}, ["y"])
    x = np.asarray([1e6, 0.1, 1e-30], np.float32)
    seen = probe(model, [{"x": x}], threads=1)["x"]
    assert seen.peak == 1e6
    assert seen.rounding["fp16"] == pytest.approx(loss(x, "fp16"), rel=1e-4)
    assert seen.rounding["fp16"] < 2**-11  # with the overflow it would be infinite


def test_the_sum_behind_a_mean(build: Build, rng: np.random.Generator) -> None:
    nodes = [("mean", "ReduceMean", "x axes", "m"), ("copy", "Neg", "m", "y")]
    model = build(nodes, {"x": ["n", 3, 5, "k"]}, ["y"], {"axes": np.asarray([1, 3], np.int64)})
    batches = [rng.standard_normal((2, 3, 5, k)).astype(np.float32) for k in (7, 11)]
    seen = probe(model, [{"x": x} for x in batches], threads=1)
    assert seen["m"].sum == pytest.approx(max(np.abs(x.sum((1, 3))).max() for x in batches), rel=1e-5)
    assert seen["m"].rounding["fp16"] < 2**-11
    assert (seen["x"].sum, seen["y"].sum) == (0, 0)


def test_a_tensor_of_zeros_loses_nothing(chain: ModelProto) -> None:
    seen = probe(chain, [{"x": np.zeros((2, 4), np.float32)}], threads=1)["t"]
    assert seen == Range(0.0, 0, {"fp16": 0.0, "bf16": 0.0}, {"fp16": 0.0, "bf16": 0.0})


def test_numbers_whose_squares_leave_float32_are_measured(chain: ModelProto) -> None:
    x = np.asarray([[1e30, -1e25, 3e29, 0.0]], np.float32)
    seen = probe(chain, [{"x": x}], threads=1)["x"]
    assert seen.rounding["bf16"] == pytest.approx(loss(x, "bf16"), rel=1e-5)


def test_sessions_and_files_change_nothing(
    network: ModelProto, pictures: list[dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = probe(network, pictures, threads=1)
    monkeypatch.setattr(onnx_tools, "IN_MEMORY_BYTES", 0)  # as for a model of gigabytes
    monkeypatch.setattr(onnx_tools, "SMALL_BYTES", 100)
    again = probe(network, pictures, threads=1, per_session=5)
    assert again == once
    assert {"p", "ln", "w2", "x", "y"} <= once.keys()
    assert "grouped" not in once  # whole numbers


def test_only_what_is_asked_for_is_measured(chain: ModelProto) -> None:
    seen = probe(chain, [{"x": np.ones((1, 4), np.float32)}], threads=1, precisions=["bf16"])["t"]
    assert seen.rounding.keys() == seen.carried.keys() == {"bf16"}


def test_tensors_between_are_freed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measuring nodes stand behind the tensor that they read, not at the end: else every tensor would stay."""
    nodes = [(f"n{i}", "Neg", f"t{i}", f"t{i + 1}") for i in range(6)]
    model = build(nodes, {"t0": ["n"]}, ["t6"])
    seen: list[ModelProto] = []
    original = measuring.session_of
    monkeypatch.setattr(measuring, "session_of", lambda m, *a, **k: (seen.append(m), original(m, *a, **k))[1])
    probe(model, [{"t0": np.ones(3, np.float32)}], threads=1)
    order = list(seen[0].graph.node)
    last_use = {name: i for i, node in enumerate(order) for name in node.input}
    made = {name: i for i, node in enumerate(order) for name in node.output}
    for i in range(1, 6):
        assert last_use[f"t{i}"] < made[f"t{i + 1}"] + 80


def test_refusals(chain: ModelProto, build: Build) -> None:
    with pytest.raises(InputError, match="no batch"):
        probe(chain, [], threads=1)
    with pytest.raises(InputError, match="'fp8' is unknown"):
        probe(chain, [{"x": np.ones((1, 4), np.float32)}], threads=1, precisions=["fp8"])
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)])
    chain.graph.node[1].attribute.append(helper.make_attribute("then_branch", branch))
    with pytest.raises(InputError, match=r"'plus' holds a subgraph.*without If"):
        probe(chain, [{"x": np.ones((1, 4), np.float32)}], threads=1)
    twins = build([("a", "Neg", "x", "t"), ("a", "Neg", "t", "y")], {"x": ["n"]}, ["y"])
    with pytest.raises(InputError, match="two layers are named 'a'"):
        probe(twins, [{"x": np.ones(2, np.float32)}], threads=1)
