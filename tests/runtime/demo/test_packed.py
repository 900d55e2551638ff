"""What ships in a short form comes out byte for byte; what is damaged or of another world is one sentence."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from minddiffuser.export.bundle.pack import pack
from minddiffuser.export.onnx.weights import WeightStore
from minddiffuser.runtime.demo.packed import BLOB, INDEX, read_index, unpack
from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.files import write_tensors

HALF = (np.arange(600, dtype=np.float16) / 8 - 30).reshape(20, 30)
ODD = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)  # no float16 is a third
VOXELS = np.arange(500, dtype=np.int32).reshape(20, 25)
FAR = VOXELS + 70_000  # no uint16
NARROW = np.linspace(-2, 2, 300, dtype=np.float16).astype(np.float32)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    write_tensors(tmp_path / "world" / "unet" / "weights.safetensors", {"conv.weight": HALF})
    return tmp_path / "world"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A graph whose weights lie beside it, and a text."""
    folder = tmp_path / "folder"
    (folder / "engines").mkdir(parents=True)
    weights = {"same": HALF.astype(np.float32), "turned": HALF.astype(np.float32).T, "odd": ODD}
    weights |= {"voxels": VOXELS, "far": FAR, "narrow": NARROW}
    tensors = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [x], tensors)
    graph.output[0].name = "y"
    with WeightStore(folder / "engines") as store:
        store.write(helper.make_model(graph), "one")
    (folder / "note.txt").write_text("hello")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_comes_out_as_it_went_in(folder: Path, world: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "packed", world, {"key": "k"})
    out = unpack(tmp_path / "packed", tmp_path / "out", world)
    assert contents(out) == contents(folder)
    assert onnx.load(str(out / "engines" / "one.onnx")).graph.initializer[2].raw_data == ODD.tobytes()
    assert read_index(tmp_path / "packed")["key"] == "k"


def test_each_weight_takes_the_shortest_form(folder: Path, world: Path, tmp_path: Path) -> None:
    """The world's own tensors are named and not stored; numbers that fit two bytes take two."""
    pack(folder, tmp_path / "packed", world, {})
    pieces = read_index(tmp_path / "packed")["files"]["engines/weights.bin"]["pieces"]
    kinds = [piece.split(" ")[0] for piece in pieces if not piece.startswith("zeros")]
    assert kinds == ["world", "world-transposed", "raw", "uint16", "raw", "float16"]
    stored = sum(path.stat().st_size for path in (folder / "engines").glob("*.onnx")) + len("hello")
    stored += ODD.nbytes + FAR.nbytes + (VOXELS.nbytes + NARROW.nbytes) // 2
    assert (tmp_path / "packed" / BLOB).stat().st_size == stored


def test_the_same_folder_is_packed_to_the_same_bytes(folder: Path, world: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack(folder, tmp_path / name, world, {})
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_what_was_changed_meanwhile_is_written_again(folder: Path, world: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "packed", world, {})
    out = unpack(tmp_path / "packed", tmp_path / "out", world)
    (out / "note.txt").write_text("hullo")
    (out / "engines" / "weights.bin").unlink()
    unpack(tmp_path / "packed", out, world)
    assert contents(out) == contents(folder)


@pytest.mark.parametrize("damage", ["blob", "cut", "world", "index", "version", "outside"])
def test_damage_is_one_sentence_and_leaves_nothing(damage: str, folder: Path, world: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    pack(folder, packed, world, {})
    blob, index = packed / BLOB, packed / INDEX
    content = json.loads(index.read_text())
    if damage == "blob":
        blob.write_bytes(bytes(len(blob.read_bytes())))
    elif damage == "cut":
        blob.write_bytes(blob.read_bytes()[:100])
    elif damage == "world":
        write_tensors(world / "unet" / "weights.safetensors", {"conv.weight": HALF + np.float16(1)})
    elif damage == "index":
        index.write_text("{")
    elif damage == "version":
        index.write_text(json.dumps({**content, "version": 99}))
    else:
        index.write_text(json.dumps({**content, "files": {"../x": {"size": 0, "sha256": "", "pieces": []}}}))
    with pytest.raises(FileError) as caught:
        unpack(packed, tmp_path / "out", world)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.glob(".out.*.draft"))
