from collections import Counter
from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from minddiffuser.export.precision import emulate, to_half
from minddiffuser.runtime.errors import InputError

Build = Callable[..., ModelProto]
Run = Callable[..., list[np.ndarray]]
DTYPES = ("float16", "bfloat16")
CASTS = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


def casts(model: ModelProto) -> list[tuple[str, int]]:
    return [(node.input[0], node.attribute[0].i) for node in model.graph.node if node.op_type == "Cast"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keep", [set(), {"softmax", "norm", "out"}], ids=["all", "some kept"])
def test_numbers_are_those_of_rounding_every_tensor(
    network: ModelProto,
    pictures: list[dict[str, np.ndarray]],
    dtype: str,
    keep: set[str],
    run: Run,
    oracle: Run,
    error: Callable[..., float],
) -> None:
    half = to_half(network, dtype, keep)
    onnx.checker.check_model(half, full_check=True)
    (found,), (wanted,), (exact,) = (
        run(emulate(half), pictures[0]),
        oracle(network, pictures[0], dtype, keep),
        run(network, pictures[0]),
    )
    # What is left between them is float32 arithmetic in another order, which now and then tips a rounding.
    assert error(found, wanted) < error(wanted, exact) / 3
    assert error(wanted, exact) < {"float16": 4e-3, "bfloat16": 3e-2}[dtype]


def test_onnx_runtime_runs_it_in_float16(
    network: ModelProto, pictures: list[dict[str, np.ndarray]], run: Run, error: Callable[..., float]
) -> None:
    half = to_half(network, "float16")
    assert error(run(half, pictures[0])[0], run(network, pictures[0])[0]) < 4e-3


@pytest.mark.parametrize("dtype", DTYPES)
def test_border_weights_and_casts(network: ModelProto, dtype: str) -> None:
    half = to_half(network, dtype, {"norm"})
    assert [value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)] == [1, 1]
    assert [value.name for value in (*half.graph.input, *half.graph.output)] == ["x", "y"]
    stored = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert stored[f"w1.{dtype}"] == CASTS[dtype]
    assert "w1" not in stored
    assert stored["one"] == stored["zero"] == TensorProto.FLOAT  # they feed only what is kept
    assert stored["twice"] == TensorProto.FLOAT  # the sizes of a Resize have no half form
    assert stored["grouped"] == TensorProto.INT64
    to = CASTS[dtype]
    assert Counter(casts(half)) == Counter({("x", to): 1, (f"g1.{dtype}", 1): 1, ("g2", to): 1, (f"y.{dtype}", 1): 1})


def test_a_weight_that_both_use_is_stored_twice_and_a_tensor_is_cast_once(build: Build, run: Run) -> None:
    nodes = [
        ("a", "Mul", "x w", "p"),
        ("b", "Add", "p w", "q"),
        ("c", "Sub", "p x", "r"),
        ("d", "Mul", "q r", "s"),
        ("e", "Add", "s q", "y"),
    ]
    model = build(nodes, {"x": [4]}, ["y", "p"], {"w": np.asarray([1, 2, 3, 0.1], np.float32)})
    half = to_half(model, "float16", {"b", "c"})
    assert {tensor.name for tensor in half.graph.initializer} == {"w", "w.float16"}
    assert Counter(casts(half)) == Counter(
        {("x", 10): 1, ("p.float16", 1): 1, ("q", 10): 1, ("r", 10): 1, ("y.float16", 1): 1}
    )
    x = np.asarray([1, -2, 0.3, 4], np.float32)
    np.testing.assert_allclose(run(half, {"x": x})[0], run(model, {"x": x})[0], rtol=4e-3)


def test_kept_all_is_the_same_graph(network: ModelProto, pictures: list[dict[str, np.ndarray]], run: Run) -> None:
    same = to_half(network, "float16", {node.name for node in network.graph.node})
    assert not casts(same)
    assert {tensor.data_type for tensor in same.graph.initializer} == {TensorProto.FLOAT, TensorProto.INT64}
    np.testing.assert_array_equal(run(same, pictures[0])[0], run(network, pictures[0])[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_attributes_and_constants_follow(build: Build, run: Run, dtype: str) -> None:
    constant = numpy_helper.from_array(np.asarray([0.1, 2, 3, 4], np.float32))
    nodes = [
        ("shape", "Shape", "x", "s"),
        ("fill", "ConstantOfShape", "s", "f", {"value": numpy_helper.from_array(np.asarray([0.3], np.float32))}),
        ("zeros", "ConstantOfShape", "s", "z"),
        ("number", "Constant", "", "k", {"value": constant}),
        ("scalar", "Constant", "", "h", {"value_float": 0.7}),
        ("first", "Add", "x f", "a"),
        ("second", "Add", "a z", "b"),
        ("third", "Mul", "b k", "c"),
        ("fourth", "Mul", "c h", "d"),
        ("whole", "Cast", "s", "i", {"to": TensorProto.FLOAT}),
        ("last", "Mul", "d i", "y"),
    ]
    model = build(nodes, {"x": [4]}, ["y"])
    half = to_half(model, dtype)
    onnx.checker.check_model(half, full_check=True)
    assert not any(node.op_type == "Constant" for node in half.graph.node)
    assert {tensor.data_type for tensor in half.graph.initializer} == {CASTS[dtype]}
    assert ("s", CASTS[dtype]) in casts(half)
    x = np.asarray([1, -2, 0.3, 4], np.float32)
    wanted = (x + np.float32(0.3)) * np.asarray([0.1, 2, 3, 4], np.float32) * np.float32(0.7) * 4
    # Rounded are both terms of the sum and it, both factors and their products: seven times, by half a unit each.
    rounding = 7 * {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    np.testing.assert_allclose(run(emulate(half), {"x": x})[0], wanted, rtol=rounding)


def test_bfloat16_raises_the_opset_where_its_schemas_need_it(network: ModelProto, build: Build) -> None:
    assert to_half(network, "bfloat16").opset_import[0].version == 22
    assert to_half(network, "float16").opset_import[0].version == 20
    assert to_half(build([("n", "Neg", "x", "y")], {"x": [4]}, ["y"]), "bfloat16").opset_import[0].version == 20
    old = build([("sin", "Sin", "x", "y")], {"x": [4]}, ["y"], opset=17)
    with pytest.raises(InputError, match="export it with opset 20"):
        to_half(old, "bfloat16")


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bytes_and_an_untouched_source(network: ModelProto, dtype: str) -> None:
    before = network.SerializeToString(deterministic=True)
    made = [
        to_half(network, dtype, keep).SerializeToString(deterministic=True)
        for keep in ({"norm", "softmax", "out"}, {"out", "softmax", "norm"})
    ]
    assert made[0] == made[1]
    assert network.SerializeToString(deterministic=True) == before


def test_shapes_that_were_known_stay_known(network: ModelProto) -> None:
    half = to_half(onnx.shape_inference.infer_shapes(network), "float16", {"norm"})
    known = {value.name: value.type.tensor_type for value in half.graph.value_info}
    assert known["c1.float16"].elem_type == TensorProto.FLOAT16
    assert [d.dim_value for d in known["c1.float16"].shape.dim][1:] == [8, 4, 4]
    assert known["g1"].elem_type == TensorProto.FLOAT  # both forms of it exist
    assert known["g1.float16"].elem_type == TensorProto.FLOAT16
    assert "c1" not in known
    onnx.checker.check_model(half, full_check=True)


def test_refusals(network: ModelProto, build: Build) -> None:
    with pytest.raises(InputError, match="no layer 'nowhere' to keep"):
        to_half(network, "float16", {"nowhere"})
    with pytest.raises(InputError, match="'float8' is unknown"):
        to_half(network, "float8")
    with pytest.raises(InputError, match="in 16 bits already"):
        to_half(to_half(network, "float16"), "float16")
    big = build([("n", "Mul", "x w", "y")], {"x": [4]}, ["y"], {"w": np.float32(1e5)})
    with pytest.raises(InputError, match=r"'w' reaches 1e\+05, but float16 ends at 65504: keep"):
        to_half(big, "float16")
    assert to_half(big, "float16", {"n"}).graph.initializer[0].data_type == TensorProto.FLOAT
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)])
    network.graph.node[1].attribute.append(helper.make_attribute("body", branch))
    with pytest.raises(InputError, match="'group' holds a subgraph"):
        to_half(network, "float16")


BINARY = st.sampled_from(["Add", "Sub", "Mul", "Max", "Min"])
UNARY = st.sampled_from(["Neg", "Abs", "Relu", "Transpose", "Identity"])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_random_graphs_round_exactly_where_they_should(
    data: st.DataObject, dtype: str, build: Build, run: Run, oracle: Run
) -> None:
    """Elementwise float32 arithmetic is exact to the bit, so emulation must equal the interpreter to the bit."""
    names, rows = ["x", "w", "v"], []
    for index in range(data.draw(st.integers(2, 9), label="layers")):
        source = st.sampled_from(names)
        binary = data.draw(st.booleans(), label="binary")
        operator = data.draw(BINARY if binary else UNARY, label="operator")
        inputs = " ".join(data.draw(source, label="input") for _ in range(1 + binary))
        rows.append((f"n{index}", operator, inputs, f"t{index}"))
        names.append(f"t{index}")
    made = names[3:]
    outputs = list(dict.fromkeys([made[-1], data.draw(st.sampled_from(made), label="another output")]))
    keep = data.draw(st.sets(st.sampled_from([row[0] for row in rows])), label="keep")
    rng = np.random.default_rng(data.draw(st.integers(0, 99), label="seed"))
    weights = {name: rng.standard_normal((3, 3)).astype(np.float32) for name in ("w", "v")}
    model = build(rows, {"x": [3, 3]}, outputs, weights)
    feeds = {"x": rng.standard_normal((3, 3)).astype(np.float32)}
    half = to_half(model, dtype, keep)
    onnx.checker.check_model(half, full_check=True)
    taken = casts(half)
    assert len(taken) == len(set(taken))
    produced = {node.output[0]: node for node in half.graph.node}
    assert not any(name in produced and produced[name].op_type == "Cast" for name, _ in taken)
    for found, wanted in zip(run(emulate(half), feeds), oracle(model, feeds, dtype, keep), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_emulation_holds_only_numbers_of_the_type(
    network: ModelProto, pictures: list[dict[str, np.ndarray]], run: Run
) -> None:
    plain = emulate(to_half(network, "bfloat16"))
    assert all(t.data_type in (TensorProto.FLOAT, TensorProto.INT64) for t in plain.graph.initializer)
    plain.graph.output.extend(
        helper.make_tensor_value_info(f"{name}.bfloat16", TensorProto.FLOAT, None) for name in ("c1", "qk", "p", "ln")
    )
    for array in run(plain, pictures[0])[1:]:
        np.testing.assert_array_equal(array.astype(ml_dtypes.bfloat16).astype(np.float32), array)


@pytest.mark.parametrize(("n", "expected"), [(30_000, 2.0), (33_000, np.inf)])
def test_emulation_stores_the_sum_of_a_mean(build: Build, run: Run, n: int, expected: float) -> None:
    """As ONNX Runtime's kernel on CUDA does: 66,000 is more than float16 holds, though 2 is not."""
    nodes = [("mean", "ReduceMean", "x axis", "m"), ("copy", "Identity", "m", "y")]
    model = build(nodes, {"x": ["n", n]}, ["y"], {"axis": np.asarray([1], np.int64)})
    (found,) = run(emulate(to_half(model, "float16")), {"x": np.full((2, n), 2, np.float32)})
    np.testing.assert_array_equal(found, np.full((2, 1), expected, np.float32))
