"""The file of shared weights: each content once, whole, in place, and the same bytes every time."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from minddiffuser.export.onnx.weights import WEIGHTS, WeightStore
from minddiffuser.runtime.bundle.onnx_safety import scan_onnx_external
from minddiffuser.runtime.errors import FileError

RNG = np.random.default_rng(0)
SHARED = RNG.standard_normal((40, 20)).astype(np.float32)  # 3,200 bytes: in the file, not on a page of its own
LARGE = RNG.standard_normal((130, 130)).astype(np.float32)  # 67,600 bytes: on a page boundary
OWN = RNG.standard_normal((20, 20)).astype(np.float64)
SMALL = RNG.standard_normal(3).astype(np.float32)


def model_of(weights: dict[str, np.ndarray]) -> ModelProto:
    """A graph that holds these weights and does nothing with them."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "holder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def places(path: Path) -> dict[str, tuple[int, int]]:
    """Weight -> (offset, length), as the graph on the disk says."""
    found = {}
    for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            assert tensor.data_location == TensorProto.EXTERNAL
            assert entries["location"] == WEIGHTS
            found[tensor.name] = (int(entries["offset"]), int(entries["length"]))
    return found


def write(folder: Path) -> tuple[Path, Path]:
    folder.mkdir()
    with WeightStore(folder) as store:
        first, data = store.write(model_of({"shared": SHARED, "large": LARGE, "small": SMALL}), "first")
        second, _ = store.write(model_of({"other.name": SHARED.copy(), "own": OWN, "again": LARGE}), "second")
        assert data == [folder / WEIGHTS]
    return first, second


def test_equal_weights_lie_once_whatever_they_are_called(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a")
    one, two = places(first), places(second)
    assert set(one) == {"shared", "large"}  # the small one stays in the graph
    assert set(two) == {"other.name", "own", "again"}
    assert one["shared"] == two["other.name"]
    assert one["large"] == two["again"]
    assert one["large"][0] % 4096 == 0
    spans = sorted({*one.values(), *two.values()})
    assert [length for _, length in spans] == [array.nbytes for array in (SHARED, LARGE, OWN)]
    for (start, length), (following, _) in zip(spans[:-1], spans[1:], strict=True):
        assert start % 64 == 0
        assert start + length <= following
    file = (tmp_path / "a" / WEIGHTS).read_bytes()
    assert len(file) == sum(spans[-1])
    assert len(file) < SHARED.nbytes + LARGE.nbytes + OWN.nbytes + 4096 + 64


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a")
    for path, expected in (
        (first, {"shared": SHARED, "large": LARGE, "small": SMALL}),
        (second, {"other.name": SHARED, "own": OWN, "again": LARGE}),
    ):
        tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer}
        assert tensors.keys() == expected.keys()
        for name, array in expected.items():
            assert tensors[name].dtype == array.dtype
            np.testing.assert_array_equal(tensors[name], array)
        assert scan_onnx_external(path) == {WEIGHTS}


def test_readers_may_come_before_the_store_is_closed(tmp_path: Path) -> None:
    with WeightStore(tmp_path) as store:
        path, _ = store.write(model_of({"shared": SHARED}), "first")
        (tensor,) = onnx.load(str(path)).graph.initializer
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), SHARED)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int64, np.bool_])
def test_any_number_type_comes_back(tmp_path: Path, dtype: Any) -> None:
    array = (100 * LARGE).astype(dtype)
    model = model_of({"weight": array, "typed": array})
    # Not as raw bytes but in a field of numbers, as some tools write it.
    del model.graph.initializer[1]
    model.graph.initializer.append(
        helper.make_tensor("typed", model.graph.initializer[0].data_type, array.shape, array)
    )
    with WeightStore(tmp_path) as store:
        path, _ = store.write(model, "graph")
    for tensor in onnx.load(str(path)).graph.initializer:
        back = numpy_helper.to_array(tensor)
        assert back.dtype == dtype
        np.testing.assert_array_equal(back, array)
    assert (tmp_path / WEIGHTS).stat().st_size == array.nbytes


def test_without_large_weights_there_is_no_file(tmp_path: Path) -> None:
    with WeightStore(tmp_path) as store:
        path, data = store.write(model_of({"small": SMALL}), "first")
    assert data == []
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_same_graphs_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    for name in ("first.onnx", "second.onnx", WEIGHTS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_subgraphs_are_refused(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["out"])],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])],
    )
    model = model_of({"yes": np.array(True)})
    model.graph.node.append(helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch))
    with WeightStore(tmp_path) as store, pytest.raises(FileError, match="the graph chooser has subgraphs"):
        store.write(model, "chooser")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_by_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`export_bundle` makes a sentence of it: see test_assemble.py."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with WeightStore(tmp_path) as store, pytest.raises(OSError, match="No space left"):
        store.write(model_of({"shared": SHARED}), "first")


def test_a_closed_store_can_be_closed_again(tmp_path: Path) -> None:
    close: Callable[[], None] = WeightStore(tmp_path).close
    close()
    close()
