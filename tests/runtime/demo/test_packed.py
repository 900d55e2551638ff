"""What ships in a short form comes out byte for byte; what is damaged or of another world is one sentence."""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from minddiffuser.export.bundle.pack import pack
from minddiffuser.export.onnx.weights import WeightStore
from minddiffuser.runtime.bundle.manifest import sealed
from minddiffuser.runtime.demo import packed as shipped
from minddiffuser.runtime.demo.packed import BLOB, INDEX, MARKER, drop_older, read_index, unpack
from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.files import write_tensors
from minddiffuser.runtime.locks import beside, locked

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
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != MARKER]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_it_comes_out_as_it_went_in(folder: Path, world: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "packed", world, {"key": "k"})
    out = unpack(tmp_path / "packed", tmp_path / "out", world)
    assert contents(out) == contents(folder)
    assert onnx.load(str(out / "engines" / "one.onnx")).graph.initializer[2].raw_data == ODD.tobytes()
    assert read_index(tmp_path / "packed").about["key"] == "k"


def test_each_weight_takes_the_shortest_form(folder: Path, world: Path, tmp_path: Path) -> None:
    """The world's own tensors are named and not stored; numbers that fit two bytes take two."""
    pack(folder, tmp_path / "packed", world, {})
    pieces = read_index(tmp_path / "packed").files["engines/weights.bin"].pieces
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


def test_what_a_person_added_stays(folder: Path, world: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "packed", world, {})
    out = unpack(tmp_path / "packed", tmp_path / "out", world)
    (out / "mine.txt").write_text("mine")
    (out / "note.txt").unlink()
    unpack(tmp_path / "packed", out, world)
    assert contents(out) == {**contents(folder), "mine.txt": b"mine"}


def test_a_bundle_that_engines_were_built_into_stays(folder: Path, world: Path, tmp_path: Path) -> None:
    listed = {"note.txt": {"sha256": shipped.sha256_of(folder / "note.txt"), "size": 5}}
    weights = {f"engines/{p.name}": {"sha256": shipped.sha256_of(p)} for p in (folder / "engines").iterdir()}
    manifest = {"files": {**listed, **weights}}
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))
    pack(folder, tmp_path / "packed", world, {})
    out = unpack(tmp_path / "packed", tmp_path / "out", world)
    (out / "engines" / "one.plan").write_text("code")
    manifest["files"]["engines/one.plan"] = {"sha256": shipped.sha256_of(out / "engines" / "one.plan")}
    built = json.dumps(sealed(manifest))
    (out / "manifest.json").write_text(built)
    unpack(tmp_path / "packed", out, world)
    assert (out / "manifest.json").read_text() == built
    for damage in (built.replace("one.plan", "two.plan"), json.dumps(sealed({"files": listed})), "[]"):
        (out / "manifest.json").write_text(damage)
        unpack(tmp_path / "packed", out, world)
        assert (out / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


@pytest.mark.parametrize("place", ["folder", "file", "link"])
def test_what_is_a_strangers_is_refused(place: str, folder: Path, world: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "packed", world, {})
    out, thesis = tmp_path / "out", tmp_path / "mine" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("ten years")
    if place == "folder":
        out, thesis = thesis.parent, thesis
    elif place == "file":
        out = thesis
    else:
        out.symlink_to(thesis.parent)
    with pytest.raises(FileError, match="new or empty folder"):
        unpack(tmp_path / "packed", out, world)
    assert [path.read_text() for path in thesis.parent.iterdir()] == ["ten years"]


def test_a_link_to_an_empty_folder_stays_a_link(folder: Path, world: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "packed", world, {})
    (tmp_path / "place").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "place")
    unpack(tmp_path / "packed", tmp_path / "out", world)
    assert (tmp_path / "out").is_symlink()
    assert contents(tmp_path / "place") == contents(folder)


def test_folders_of_earlier_releases_are_dropped_unless_used_or_added_to(
    folder: Path, world: Path, tmp_path: Path
) -> None:
    pack(folder, tmp_path / "packed", world, {})
    names = ("old-1", "old-now", "old-held", "old-more", "old-mine", "other", "old-9")
    for name in names:
        unpack(tmp_path / "packed", tmp_path / "cache" / name, world)
        os.utime(beside(tmp_path / "cache" / name), (1000, 1000))
    now = time.time()
    (tmp_path / "cache" / "old-more" / "engines" / "built.plan").touch()
    (tmp_path / "cache" / "old-mine" / MARKER).unlink()
    os.utime(beside(tmp_path / "cache" / "old-now"), (now, now))
    held = tmp_path / "cache" / "old-held"
    with locked(beside(held), held):
        os.utime(beside(held), (1000, 1000))
        drop_older(tmp_path / "cache" / "old-9", re.compile("old-.*"), now)
    left = {path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()}
    assert left == {*names} - {"old-1"}


def _one(name: str) -> dict[str, Any]:
    return {name: {"size": 0, "sha256": "0" * 64, "pieces": []}}


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "version": lambda index: index.update(version=99),
    "no files": lambda index: index.pop("files"),
    "files": lambda index: index.update(files=[]),
    "no blob": lambda index: index.pop("blob"),
    "hash": lambda index: index["files"]["note.txt"].update(sha256="x"),
    "size": lambda index: index["files"]["note.txt"].update(size="5"),
    "pieces": lambda index: index["files"]["note.txt"].update(pieces=[3]),
    "piece": lambda index: index["files"]["note.txt"].update(pieces=["steal 3"]),
    "few words": lambda index: index["files"]["note.txt"].update(pieces=["raw"]),
    "huge": lambda index: index["files"]["note.txt"].update(pieces=[f"zeros {1 << 60}"]),
    "minus": lambda index: index["files"]["note.txt"].update(pieces=["raw -5 5"]),
    "tensor": lambda index: index["files"]["note.txt"].update(pieces=["world unet/weights.safetensors none"]),
    "above": lambda index: index.update(files=_one("../x")),
    "root": lambda index: index.update(files=_one("/x")),
    "backslash": lambda index: index.update(files=_one("..\\x")),
    "drive": lambda index: index.update(files=_one("C:x")),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_index_is_one_sentence(edit: str, folder: Path, world: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "packed", world, {})
    index = json.loads((tmp_path / "packed" / INDEX).read_text())
    EDITS[edit](index)
    (tmp_path / "packed" / INDEX).write_text(json.dumps(index))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileError, match="install the package again|version 99") as caught:
        unpack(tmp_path / "packed", tmp_path / "out", world)
    assert "\n" not in str(caught.value)
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.suffix != ".lock"] == []


@pytest.mark.parametrize("damage", ["blob", "cut", "world", "index"])
def test_damage_is_one_sentence_and_leaves_nothing(damage: str, folder: Path, world: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    pack(folder, packed, world, {})
    blob, index = packed / BLOB, packed / INDEX
    if damage == "blob":
        blob.write_bytes(bytes(len(blob.read_bytes())))
    elif damage == "cut":
        blob.write_bytes(blob.read_bytes()[:100])
    elif damage == "world":
        write_tensors(world / "unet" / "weights.safetensors", {"conv.weight": HALF + np.float16(1)})
    else:
        index.write_text("{")
    said = {"blob": "its SHA-256 is another", "cut": "has 100 bytes", "world": "another tiny world", "index": "damaged"}
    with pytest.raises(FileError, match=said[damage]) as caught:
        unpack(packed, tmp_path / "out", world)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out.*.draft"))
