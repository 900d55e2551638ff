"""Names of other files in ONNX models, against a walk by protobuf's own reflection; and bytes that are no model."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, onnx_ml_pb2

from minddiffuser.runtime.bundle import onnx_safety
from minddiffuser.runtime.bundle.onnx_safety import scan_onnx_external
from minddiffuser.runtime.errors import FileError

MESSAGES = onnx_ml_pb2.DESCRIPTOR.message_types_by_name
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def tensor(location: str, *, name: str = "t", key: str = "location") -> TensorProto:
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="offset", value="0")
    made.external_data.add(key=key, value=location)
    return made


def everywhere() -> tuple[ModelProto, set[str]]:
    """A model with an external tensor at each place that ONNX has for one, and their names."""
    inner = helper.make_graph([], "inner", [], [], [tensor("subgraph")])
    node = helper.make_node("Thing", ["x"], ["y"])
    node.attribute.append(helper.make_attribute("one", tensor("attribute")))
    node.attribute.append(helper.make_attribute("many", [tensor("attributes_a"), tensor("attributes_b")]))
    node.attribute.append(helper.make_attribute("branch", inner))
    second = helper.make_graph([], "second", [], [], [tensor("subgraphs")])
    node.attribute.append(helper.make_attribute("branches", [second, helper.make_graph([], "empty", [], [])]))
    sparse = node.attribute.add(name="sparse")
    sparse.sparse_tensor.values.CopyFrom(tensor("sparse_attribute"))
    sparse.sparse_tensors.add().indices.CopyFrom(tensor("sparse_attributes"))
    plain = helper.make_tensor("plain", TensorProto.FLOAT, [2], np.float32([1, 2]).tobytes(), raw=True)
    model = helper.make_model(helper.make_graph([node], "outer", [], [], [tensor("initializer"), plain]))
    entry = model.graph.sparse_initializer.add()
    entry.values.CopyFrom(tensor("sparse_values"))
    entry.indices.CopyFrom(tensor("sparse_indices"))
    function = model.functions.add(name="f")
    function.node.append(helper.make_node("Constant", [], ["c"], value=tensor("function")))
    function.attribute_proto.append(helper.make_attribute("default", tensor("function_default")))
    training = model.training_info.add()
    training.initialization.initializer.append(tensor("training_start"))
    training.algorithm.initializer.append(tensor("training_step"))
    names = (
        "subgraph attribute attributes_a attributes_b subgraphs sparse_attribute sparse_attributes initializer "
        "sparse_values sparse_indices function function_default training_start training_step"
    )
    return model, set(names.split())


def reflected(message: object) -> Iterator[str]:
    """Every location in a message, by protobuf's reflection alone."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in value if not hasattr(value, "ListFields") else [value]:
            if field.name == "external_data":
                yield from [child.value] if child.key == "location" else []
            else:
                yield from reflected(child)


def scan(folder: Path, data: bytes) -> frozenset[str]:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return scan_onnx_external(path)


def test_every_place_of_a_tensor_is_looked_through(tmp_path: Path) -> None:
    model, names = everywhere()
    assert set(reflected(model)) == names
    assert scan(tmp_path, model.SerializeToString()) == names


def test_the_table_of_fields_is_that_of_onnx() -> None:
    """All fields by which a message can reach a TensorProto, from the descriptors of the installed onnx."""

    def short(name: str) -> str:
        return name.removesuffix("Proto").removesuffix("Info") + ("Info" if name == "TrainingInfoProto" else "")

    holds = {"TensorProto"}
    while True:
        more = {n for n, m in MESSAGES.items() for f in m.fields if f.message_type and f.message_type.name in holds}
        if more <= holds:
            break
        holds |= more
    expected = {
        short(name): {
            field.number: short(field.message_type.name)
            for field in MESSAGES[name].fields
            if field.message_type and field.message_type.name in holds
        }
        for name in holds
    }
    expected["Tensor"] = {MESSAGES["TensorProto"].fields_by_name["external_data"].number: "ExternalData"}
    assert expected == onnx_safety._CHILDREN
    entry = MESSAGES["StringStringEntryProto"].fields_by_name
    assert (entry["key"].number, entry["value"].number) == (onnx_safety._KEY, onnx_safety._VALUE)
    assert MESSAGES["NodeProto"].fields_by_name["op_type"].number == onnx_safety._OP_TYPE


NAMES = st.sampled_from(["a.bin", "../b", "/etc/passwd", "é", "", "location"])
TENSORS = st.builds(tensor, NAMES, key=st.sampled_from(["location", "Location", "checksum"]))


@st.composite
def models(draw: st.DrawFn, depth: int = 3) -> ModelProto:
    def graph(depth: int) -> onnx_ml_pb2.GraphProto:
        made = helper.make_graph([], "g", [], [], draw(st.lists(TENSORS, max_size=2)))
        for _ in range(draw(st.integers(0, 2)) if depth else 0):
            node = made.node.add(op_type="If", doc_string="x" * draw(st.sampled_from([0, 300, 20_000])))
            node.attribute.add(name="a", type=5).g.CopyFrom(graph(depth - 1))
            node.attribute.add(name="b", type=9).tensors.extend(draw(st.lists(TENSORS, max_size=2)))
        return made

    return helper.make_model(graph(depth))


@QUICK
@given(model=models())
def test_names_are_those_that_protobuf_finds(model: ModelProto, tmp_path: Path) -> None:
    assert scan(tmp_path, model.SerializeToString()) == set(reflected(model))


@QUICK
@given(where=st.floats(0, 1, exclude_max=True), garbage=st.binary(max_size=12))
def test_damage_is_one_sentence_or_harmless(where: float, garbage: bytes, tmp_path: Path) -> None:
    data = everywhere()[0].SerializeToString()
    at = int(where * len(data))
    for damaged in (data[:at], data[:at] + garbage + data[at + len(garbage) :], garbage):
        try:
            found = scan(tmp_path, damaged)
        except FileError:
            continue
        try:
            model = ModelProto.FromString(damaged)
        except Exception:
            continue  # ONNX's own parser refuses it: nothing is read
        assert set(reflected(model)) <= found


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"\x3a", "number at byte 1 does not end"),  # a graph without a length
        (b"\x3a\x05ab", "longer than what holds it"),
        (b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "does not end"),
        (b"\x3b\x3c", "begins no field"),  # a group
        (b"\x00\x01", "begins no field"),  # field 0
        (b"\x0d\x01\x02", "cut off"),
        (b"\x18\x00\x00\x00ORTM" + bytes(40), "ONNX Runtime's own format"),
    ],
)
def test_bytes_that_are_no_model(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=reason):
        scan(tmp_path, data)


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.onnx"):
        with pytest.raises(FileError, match=f"{path.name} cannot be read"):
            scan_onnx_external(path)


def nested(times: int) -> bytes:
    """Graphs in attributes of nodes of graphs, ``3 * times + 4`` messages deep."""

    def field(number: int, content: bytes) -> bytes:
        size, head = len(content), bytearray([number << 3 | 2])
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        return bytes([*head, size]) + content

    data = field(5, tensor("deep").SerializeToString())
    for _ in range(times):
        data = field(1, field(5, field(6, data)))
    return field(7, data)


def test_nesting_ends_where_protobuf_ends_it(tmp_path: Path) -> None:
    assert scan(tmp_path, nested(32)) == {"deep"}
    assert set(reflected(ModelProto.FromString(nested(32)))) == {"deep"}
    for times in (33, 2000):
        with pytest.raises(FileError, match="more than 100 deep"):
            scan(tmp_path, nested(times))


def test_a_name_given_twice_counts_twice(tmp_path: Path) -> None:
    """Protobuf takes the last of two values; which one a parser takes must not matter."""
    entry = b"\x0a\x08location\x12\x01a\x12\x01b"
    made = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(made)]) + made
    assert scan(tmp_path, b"\x3a" + bytes([len(graph)]) + graph) == {"a", "b"}


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    data = everywhere()[0].SerializeToString().replace(b"subgraphs", b"subgrap\xff\xfe")
    with pytest.raises(FileError, match="not Unicode"):
        scan(tmp_path, data)


@pytest.mark.parametrize("inside", [False, True])
def test_a_compiled_engine_is_refused(inside: bool, tmp_path: Path) -> None:
    node = helper.make_node(
        "EPContext", [], ["y"], domain="com.microsoft", embed_mode=0, ep_cache_context="../x.engine"
    )
    if inside:
        node = helper.make_node("If", ["c"], ["y"], then_branch=helper.make_graph([node], "then", [], []))
    with pytest.raises(FileError, match="EPContext"):
        scan(tmp_path, helper.make_model(helper.make_graph([node], "g", [], [])).SerializeToString())
    word = helper.make_node("Thing", ["EPContext"], ["y"], name="EPContext")
    assert scan(tmp_path, helper.make_model(helper.make_graph([word], "g", [], [])).SerializeToString()) == frozenset()


class Watched:
    """Bytes that count how many of them are looked at, each time that they are."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.seen = data, 0

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, place: int | slice) -> int | bytes:
        found = self._data[place]
        self.seen += len(found) if isinstance(found, bytes) else 1
        return found


def test_data_are_stepped_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that look like a name are none, and of 14 MB of them nothing is read."""
    entry = tensor("looks-like-a-name").SerializeToString()
    raw = np.frombuffer((entry * (1 + 14_000_000 // len(entry)))[:14_000_000], np.uint8)
    initializers = [helper.make_tensor("raw", TensorProto.UINT8, raw.shape, raw.tobytes(), raw=True), tensor("named")]
    nodes = [helper.make_node("Add", [f"x{i}", "w"], [f"x{i + 1}"], name=f"add_{i}") for i in range(2000)]
    path = tmp_path / "large.onnx"
    path.write_bytes(helper.make_model(helper.make_graph(nodes, "g", [], [], initializers)).SerializeToString())
    watched: list[Watched] = []
    locations = onnx_safety._locations

    def watching(data: mmap.mmap, path: Path) -> frozenset[str]:
        watched.append(Watched(data))
        return locations(watched[0], path)  # type: ignore[arg-type]

    monkeypatch.setattr(onnx_safety, "_locations", watching)
    assert scan_onnx_external(path) == {"named"}
    # What is no data is looked through for words, and walked: twice, where every byte of it counted.
    assert watched[0].seen < 2 * (path.stat().st_size - raw.nbytes)
