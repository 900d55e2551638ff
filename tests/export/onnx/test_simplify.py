"""What simplifying takes away, and what it must leave: each rule against ONNX Runtime on the graph as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from minddiffuser.export.onnx.simplify import simplify

BATCHES = (1, 2, 5)
Build = Callable[..., ModelProto]
Run = Callable[..., dict[str, np.ndarray]]


def simplified(model: ModelProto) -> ModelProto:
    opened = ir.from_proto(model)
    simplify(opened)
    out: ModelProto = ir.to_proto(opened)
    onnx.checker.check_model(out, full_check=True)
    return out


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def constants(model: ModelProto) -> list[list[int]]:
    return [numpy_helper.to_array(t).tolist() for t in model.graph.initializer if t.data_type == TensorProto.INT64]


def check_same(run: Run, before: ModelProto, after: ModelProto, **shapes: tuple[int | str, ...]) -> None:
    """Both give the same numbers for every batch; names stand for the batch and for another free size."""
    rng = np.random.default_rng(1)
    for batch in BATCHES:
        sizes = {"batch": batch, "other": 7 - batch}
        feeds = {
            name: rng.standard_normal([sizes.get(size, size) for size in shape], dtype=np.float32)  # type: ignore[arg-type]
            for name, shape in shapes.items()
        }
        expected, found = run(before, feeds), run(after, feeds)
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


def view(source: str, out: str, sizes: str) -> list[tuple[Any, ...]]:
    """A reshape as tracing leaves it: the batch read at run time and joined with fixed sizes."""
    return [
        ("Shape", source, f"{out}_shape"),
        ("Gather", f"{out}_shape first", f"{out}_batch"),
        ("Concat", f"{out}_batch {sizes}", f"{out}_target", {"axis": 0}),
        ("Reshape", f"{source} {out}_target", out),
    ]


FIRST = {"first": np.array([0])}


def test_a_reshape_computed_at_run_time_becomes_a_constant(build: Build, run: Run) -> None:
    model = build(
        [*view("x", "v", "sizes"), ("Relu", "v", "y")],
        {"x": ("batch", 2, 6)},
        {"y": ("batch", 3, 4)},
        FIRST | {"sizes": np.array([3, 4])},
    )
    after = simplified(model)
    assert operators(after) == {"Reshape": 1, "Relu": 1}
    assert constants(after) == [[-1, 3, 4]]
    check_same(run, model, after, x=("batch", 2, 6))


def test_reshapes_in_a_row_become_one(build: Build, run: Run) -> None:
    model = build(
        [*view("x", "v", "sizes"), *view("v", "w", "flat"), ("Relu", "w", "y")],
        {"x": ("batch", 2, 6)},
        {"y": ("batch", 12)},
        FIRST | {"sizes": np.array([3, 4]), "flat": np.array([12])},
    )
    after = simplified(model)
    assert operators(after) == {"Reshape": 1, "Relu": 1}
    check_same(run, model, after, x=("batch", 2, 6))


def test_a_zero_in_a_target_copies_what_it_copied_before(build: Build, run: Run) -> None:
    """Size 1 of (batch, 4, 6) is 4, that of (batch, 6, 4) is 6."""
    model = build(
        [("Reshape", "x turned", "v"), ("Reshape", "v split", "w"), ("Relu", "w", "y")],
        {"x": ("batch", 6, 4)},
        {"y": ("batch", 4, 2, 3)},
        {"turned": np.array([-1, 4, 6]), "split": np.array([0, 0, 2, 3])},
    )
    after = simplified(model)
    assert operators(after) == {"Reshape": 1, "Relu": 1}
    check_same(run, model, after, x=("batch", 6, 4))


def test_a_reshape_to_the_same_shape_goes(build: Build, run: Run) -> None:
    model = build(
        [*view("x", "v", "sizes"), ("Relu", "v", "y")],
        {"x": ("batch", 2, 6)},
        {"y": ("batch", 2, 6)},
        FIRST | {"sizes": np.array([2, 6])},
    )
    after = simplified(model)
    assert operators(after) == {"Relu": 1}
    check_same(run, model, after, x=("batch", 2, 6))


def test_a_reshape_that_is_an_output_stays(build: Build, run: Run) -> None:
    nodes = [*view("x", "v", "sizes"), ("Reshape", "v v_target", "y"), ("Relu", "v", "z")]
    model = build(
        nodes,
        {"x": ("batch", 2, 6)},
        {"y": ("batch", 2, 6), "z": ("batch", 2, 6)},
        FIRST | {"sizes": np.array([2, 6])},
    )
    after = simplified(model)
    assert [value.name for value in after.graph.output] == ["y", "z"]
    check_same(run, model, after, x=("batch", 2, 6))


def test_two_free_sizes_are_left_to_run_time(build: Build, run: Run) -> None:
    """(batch, other, 6) to (batch, other, 2, 3): no constant says it."""
    model = build(
        [
            ("Shape", "x", "s", {"end": 2}),
            ("Concat", "s sizes", "target", {"axis": 0}),
            ("Reshape", "x target", "v"),
            ("Relu", "v", "y"),
        ],
        {"x": ("batch", "other", 6)},
        {"y": ("batch", "other", 2, 3)},
        {"sizes": np.array([2, 3])},
    )
    after = simplified(model)
    assert operators(after)["Reshape"] == 1
    assert [-1, 2, 3] not in constants(after)
    check_same(run, model, after, x=("batch", "other", 6))


@pytest.mark.parametrize("operator", ["Cast", "CastLike"])
def test_a_cast_to_the_type_that_is_there_goes(build: Build, run: Run, operator: str) -> None:
    cast = ("Cast", "x", "c", {"to": TensorProto.FLOAT}) if operator == "Cast" else ("CastLike", "x like", "c")
    model = build(
        [cast, ("Relu", "c", "y")],
        {"x": ("batch", 4)},
        {"y": ("batch", 4)},
        {"like": np.zeros((), np.float32)},
    )
    after = simplified(model)
    assert operators(after) == {"Relu": 1}
    check_same(run, model, after, x=("batch", 4))


def test_a_cast_that_rounds_stays(build: Build, run: Run) -> None:
    model = build(
        [
            ("Cast", "x", "i", {"to": TensorProto.INT64}),
            ("CastLike", "i x", "c"),
            ("CastLike", "x half", "h"),
            ("Cast", "h", "w", {"to": TensorProto.FLOAT}),
            ("Add", "c w", "y"),
        ],
        {"x": ("batch", 4)},
        {"y": ("batch", 4)},
        {"half": np.zeros((), np.float16)},
    )
    after = simplified(model)
    assert operators(after) == {"Cast": 4, "Add": 1}  # what a CastLike casts to is known
    check_same(run, model, after, x=("batch", 4))


def test_a_cast_that_is_an_output_stays(build: Build, run: Run) -> None:
    model = build([("Cast", "x", "y", {"to": TensorProto.FLOAT})], {"x": ("batch", 4)}, {"y": ("batch", 4)})
    after = simplified(model)
    assert [value.name for value in after.graph.output] == ["y"]
    assert [value.name for value in after.graph.input] == ["x"]
    check_same(run, model, after, x=("batch", 4))


def test_an_expansion_that_its_reader_does_by_itself_goes(build: Build, run: Run) -> None:
    model = build(
        [("Shape", "x", "s"), ("Expand", "bias s", "e"), ("Mul", "x e", "y")],
        {"x": ("batch", 3, 4)},
        {"y": ("batch", 3, 4)},
        {"bias": np.arange(4, dtype=np.float32)},
    )
    after = simplified(model)
    assert operators(after) == {"Mul": 1}
    check_same(run, model, after, x=("batch", 3, 4))


def test_an_expansion_to_the_same_shape_goes(build: Build, run: Run) -> None:
    model = build(
        [("Shape", "x", "s"), ("Expand", "x s", "e"), ("Relu", "e", "y")], {"x": ("batch", 4)}, {"y": ("batch", 4)}
    )
    after = simplified(model)
    assert operators(after) == {"Relu": 1}
    check_same(run, model, after, x=("batch", 4))


def test_an_expansion_over_fixed_sizes_gets_a_constant_target(build: Build, run: Run) -> None:
    model = build(
        [("Shape", "x", "s"), ("Expand", "column s", "e"), ("Concat", "x e", "y", {"axis": 1})],
        {"x": ("batch", 3), "column": ("batch", 1)},
        {"y": ("batch", 6)},
    )
    after = simplified(model)
    assert operators(after) == {"Expand": 1, "Concat": 1}
    assert constants(after) == [[1, 3]]
    check_same(run, model, after, x=("batch", 3), column=("batch", 1))


def test_an_expansion_over_the_batch_is_needed(build: Build, run: Run) -> None:
    """As of the unconditional context, which is joined with the trials' own."""
    model = build(
        [("Shape", "x", "s"), ("Expand", "row s", "e"), ("Concat", "e x", "y", {"axis": 0})],
        {"x": ("batch", 3)},
        {"y": ("doubled", 3)},
        {"row": np.arange(3, dtype=np.float32)},
    )
    after = simplified(model)
    assert operators(after)["Expand"] == 1
    check_same(run, model, after, x=("batch", 3))


def test_of_two_expansions_that_meet_one_is_needed(build: Build, run: Run) -> None:
    model = build(
        [("Shape", "x", "s"), ("Expand", "row s", "e"), ("Expand", "one s", "f"), ("Add", "e f", "y")],
        {"x": ("batch", 3)},
        {"y": ("batch", 3)},
        {"row": np.arange(3, dtype=np.float32), "one": np.ones((1, 1), np.float32)},
    )
    after = simplified(model)
    assert operators(after)["Expand"] == 1
    check_same(run, model, after, x=("batch", 3))


def test_an_expansion_added_to_itself_is_needed(build: Build, run: Run) -> None:
    model = build(
        [("Shape", "x", "s"), ("Expand", "row s", "e"), ("Add", "e e", "y")],
        {"x": ("batch", 3)},
        {"y": ("batch", 3)},
        {"row": np.arange(3, dtype=np.float32)},
    )
    after = simplified(model)
    assert operators(after)["Expand"] == 1
    check_same(run, model, after, x=("batch", 3))


def test_an_expansion_that_is_an_output_stays(build: Build, run: Run) -> None:
    model = build(
        [("Shape", "x", "s"), ("Expand", "row s", "y"), ("Add", "x y", "z")],
        {"x": ("batch", 3)},
        {"y": ("batch", 3), "z": ("batch", 3)},
        {"row": np.arange(3, dtype=np.float32)},
    )
    after = simplified(model)
    assert operators(after)["Expand"] == 1
    check_same(run, model, after, x=("batch", 3))


def test_weights_are_not_folded(build: Build, run: Run) -> None:
    """A weight that a gradient uses in two layouts is held once; one that is scaled stays what other graphs hold."""
    weight = np.random.default_rng(2).standard_normal((80, 60)).astype(np.float32)
    model = build(
        [
            ("Transpose", "weight", "turned", {"perm": [1, 0]}),
            ("MatMul", "x turned", "up"),
            ("MatMul", "up weight", "back"),
            ("Mul", "scaled two", "large"),
            ("MatMul", "back large", "y"),
        ],
        {"x": ("batch", 60)},
        {"y": ("batch", 80)},
        {"weight": weight, "scaled": np.ascontiguousarray(weight.T) + 1, "two": np.array(2.0, np.float32)},
    )
    after = simplified(model)
    assert operators(after) == {"Transpose": 1, "MatMul": 3, "Mul": 1}
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    assert kept.keys() == {"weight", "scaled", "two"}
    np.testing.assert_array_equal(kept["weight"], weight)
    check_same(run, model, after, x=("batch", 60))


def test_what_is_computed_twice_is_computed_once(build: Build, run: Run) -> None:
    model = build(
        [("Exp", "x", "a"), ("Exp", "x", "b"), ("Add", "a b", "y"), ("Sin", "x", "unused")],
        {"x": ("batch", 4)},
        {"y": ("batch", 4)},
    )
    after = simplified(model)
    assert operators(after) == {"Exp": 1, "Add": 1}
    check_same(run, model, after, x=("batch", 4))
