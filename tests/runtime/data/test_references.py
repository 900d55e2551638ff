"""Pictures that stay where they lie: read whole, checked by their pixels, and never from outside their root."""

from __future__ import annotations

import hashlib
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.data.references import Reference, read_picture, refer, reference_from_json
from minddiffuser.runtime.data.stimuli import stimulus_ids
from minddiffuser.runtime.errors import FileError, InputError, MissingExtra
from minddiffuser.runtime.images import write_png

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 9, 12, 3), dtype=np.uint8)
HASH = "0" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "cats").mkdir(parents=True)
    write_png(tmp_path / "root/cats/one.png", PICTURES[1])
    np.save(tmp_path / "root/all.npy", PICTURES)
    return tmp_path / "root"


def test_a_file_and_an_index_name_the_same_pixels(root: Path) -> None:
    file, member = refer(root, "cats/one.png"), refer(root, "all.npy", index=1)
    for reference in (file, member):
        np.testing.assert_array_equal(reference.read(), PICTURES[1])
        np.testing.assert_array_equal(read_picture(reference), PICTURES[1])
    expected = hashlib.sha256(b"(9, 12, 3)" + PICTURES[1].tobytes()).hexdigest()
    assert file.sha256 == member.sha256 == expected
    assert (file.name, member.name) == ("one.png", "all.npy[1]")
    ids = stimulus_ids([file, member, refer(root, "all.npy", index=0), root / "cats/one.png"])
    assert ids[0] == ids[1] == ids[3] != ids[2]


def test_json_there_and_back(root: Path) -> None:
    for reference in (refer(root, "cats/one.png"), refer(root, "all.npy", index=2)):
        assert reference_from_json(reference.as_json(), root, "here") == reference
    moved = reference_from_json(reference.as_json(), root / "elsewhere", "here")
    with pytest.raises(FileError, match=r"does not exist: give the folder that holds all.npy with --stimuli-root"):
        moved.read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "../secret.png"}, "is not below the root"),
        ({"path": "cats/../../secret.png"}, "is not below the root"),
        ({"path": "/etc/passwd"}, "is not below the root"),
        ({"path": "cats//one.png"}, "is not below the root"),
        ({"path": "./one.png"}, "is not below the root"),
        ({"path": "C:/one.png"}, "is not below the root"),
        ({"path": "..\\one.png"}, "is not below the root"),
        ({"path": "one\n.png"}, "is not below the root"),
        ({"path": 7}, "is not below the root"),
        ({"sha256": "abc"}, "sha256 of 'a.png' is 'abc': give 64 hexadecimal digits"),
        ({"index": 0}, r"index of 'a.png' is 0: give it only for .npy, .hdf5, .h5 files"),
        ({"path": "a.npy"}, "index of 'a.npy' is None: give a whole number from 0"),
        ({"path": "a.npy", "index": -1}, "index of 'a.npy' is -1"),
        ({"path": "a.npy", "index": True}, "index of 'a.npy' is True"),
        ({"path": "a.npy", "index": 0, "dataset": "x"}, "dataset of 'a.npy' is 'x': give it only for HDF5 files"),
        ({"path": "a.hdf5", "index": 0}, "dataset of 'a.hdf5' is None: give the name of a data set"),
        ({"path": "a.hdf5", "index": 0, "dataset": "a/../b"}, "dataset of 'a.hdf5' is 'a/../b'"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    given = {"path": "a.png", "sha256": HASH, **changes}
    with pytest.raises(InputError, match=message):
        Reference(root=Path("root"), **given)
    with pytest.raises(FileError, match=f"^train picture 4: .*{message}"):
        reference_from_json(given, Path("root"), "train picture 4")


@pytest.mark.parametrize("content", [None, "a.png", {}, {"path": "a.png"}, {"path": "a.png", "sha256": HASH, "x": 1}])
def test_other_json_is_refused(content: Any) -> None:
    with pytest.raises(FileError, match="give an object with path and sha256"):
        reference_from_json(content, Path("root"), "here")


def test_links_out_of_the_root_are_not_followed(root: Path) -> None:
    write_png(root.parent / "secret.png", PICTURES[0])
    (root / "way.png").symlink_to(root.parent / "secret.png")
    (root / "out").symlink_to(root.parent)
    (root / "inside.png").symlink_to(root / "cats/one.png")
    for path in ("way.png", "out/secret.png"):
        with pytest.raises(FileError, match="is a link out of its root"):
            refer(root, path)
    np.testing.assert_array_equal(refer(root, "inside.png").read(), PICTURES[1])
    (root.parent / "link").symlink_to(root)  # the root itself may be one
    np.testing.assert_array_equal(refer(root.parent / "link", "cats/one.png").read(), PICTURES[1])


def test_other_pixels_are_refused(root: Path) -> None:
    reference = refer(root, "cats/one.png")
    write_png(root / "cats/one.png", PICTURES[2])
    with pytest.raises(FileError, match=r"one.png has other pixels than those that the subject saw \(SHA-256"):
        reference.read()


def bad_array(array: Any) -> bytes:
    memory = io.BytesIO()
    np.save(memory, array)
    return memory.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bad_array(PICTURES)[:-50], "cannot be read .*: the file is damaged"),
        (b"", "cannot be read"),
        (b"PK\x03\x04 no archive", "cannot be read"),
        (bad_array(PICTURES.astype(np.float32)), r"float32 \(3, 9, 12, 3\), expected pictures as uint8"),
        (bad_array(PICTURES[0]), r"uint8 \(9, 12, 3\), expected"),
        (bad_array(np.array([{"a": 1}], object)), "cannot be read"),
        (bad_array(PICTURES[:1]), r"all.npy\[1\] does not exist: the file holds 1 pictures, counted from 0"),
    ],
)
def test_array_files_of_other_content(root: Path, content: bytes, message: str) -> None:
    reference = refer(root, "all.npy", index=1)
    (root / "all.npy").write_bytes(content)
    with pytest.raises(FileError, match=message) as caught:
        reference.read()
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_picture(root: Path) -> None:
    with pytest.raises(FileError, match="cats does not exist"):
        refer(root, "cats")


def test_without_h5py_the_package_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "stimuli.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        MissingExtra, match=r"stimuli.hdf5\[0\] lies in an HDF5 file, which h5py reads: pip install h5py"
    ):
        refer(root, "stimuli.hdf5", index=0, dataset="imgBrick")


def test_hdf5(root: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(root / "stimuli.hdf5", "w") as file:
        file["imgBrick"] = PICTURES
        file["group/more"] = PICTURES[::-1]
    np.testing.assert_array_equal(refer(root, "stimuli.hdf5", index=2, dataset="imgBrick").read(), PICTURES[2])
    reference = refer(root, "stimuli.hdf5", index=0, dataset="group/more")
    np.testing.assert_array_equal(reference.read(), PICTURES[2])
    for dataset in ("other", "group", "imgBrick/x"):
        with pytest.raises(FileError, match=f"has no data set '{dataset}' of its own"):
            replace(reference, dataset=dataset).read()
    whole = (root / "stimuli.hdf5").read_bytes()
    for length in (0, 100, len(whole) // 2):
        (root / "stimuli.hdf5").write_bytes(whole[:length])
        with pytest.raises(FileError, match="damaged") as caught:
            reference.read()
        assert "\n" not in str(caught.value)


def test_hdf5_that_leads_to_other_files_is_not_followed(root: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(root.parent / "secret.hdf5", "w") as file:
        file["imgBrick"] = PICTURES
    (root.parent / "secret.bin").write_bytes(PICTURES.tobytes())
    with h5py.File(root / "stimuli.hdf5", "w") as file:
        file["linked"] = h5py.ExternalLink(str(root.parent / "secret.hdf5"), "imgBrick")
        file["soft"] = h5py.SoftLink("/linked")
        external = [(str(root.parent / "secret.bin"), 0, PICTURES.nbytes)]
        file.create_dataset("raw", PICTURES.shape, np.uint8, external=external)
        layout = h5py.VirtualLayout(PICTURES.shape, np.uint8)
        layout[:] = h5py.VirtualSource(str(root.parent / "secret.hdf5"), "imgBrick", PICTURES.shape)
        file.create_virtual_dataset("virtual", layout)
    for dataset in ("linked", "soft", "raw", "virtual"):
        with pytest.raises(FileError, match="of its own"):
            refer(root, "stimuli.hdf5", index=0, dataset=dataset)
