"""Arrays in every kind of file, against the pictures that were put in."""

import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import FileError, MindDiffuserError, ShapeError
from minddiffuser.runtime.evaluate.arrays import READERS
from minddiffuser.runtime.evaluate.pictures import Pictures, open_pictures
from minddiffuser.runtime.files import write_tensors
from minddiffuser.runtime.images import write_png


def _torch(path: Path, array: np.ndarray) -> None:
    import torch

    torch.save(torch.from_numpy(array), path)


def _hdf5(path: Path, array: np.ndarray) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["recons/all"] = array


WRITERS: dict[str, Callable[[Path, np.ndarray], Any]] = {
    ".npy": np.save,
    ".npz": lambda path, array: np.savez_compressed(path, recons=array),
    ".safetensors": lambda path, array: write_tensors(path, {"recons": array}),
    ".pt": _torch,
    ".pth": _torch,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}


@pytest.fixture
def stack() -> Any:
    with ExitStack() as opened:
        yield opened


def levels(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape).astype(np.uint8)


def images(found: Pictures) -> np.ndarray:
    return np.stack([source.image() for item in found.items for source in item.sources])


def test_every_kind_of_file_has_a_test() -> None:
    assert set(WRITERS) == set(READERS)


@pytest.mark.parametrize("suffix", WRITERS)
def test_it_holds_the_pictures(suffix: str, tmp_path: Path, stack: ExitStack, rng: np.random.Generator) -> None:
    array = levels(rng, 4, 6, 5, 3)
    WRITERS[suffix](tmp_path / f"a{suffix}", array)
    found = open_pictures(tmp_path / f"a{suffix}", stack)
    np.testing.assert_allclose(images(found), array.transpose(0, 3, 1, 2) / 255, atol=1e-7)
    assert not found.named
    assert len({source.digest() for item in found.items for source in item.sources}) == 4


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        (lambda a: a.transpose(0, 3, 1, 2), ""),
        (lambda a: (a / 255).astype(np.float32), ""),
        (lambda a: (a / 255).astype(np.float16), ""),
        (lambda a: a.astype(np.float64), "0 to 255"),
        (lambda a: np.where(a == a.max(), 1.1, a / 255), "clipped"),
        (lambda a: np.concatenate([a, np.full_like(a[..., :1], 255)], axis=-1), ""),
        (lambda a: a.reshape(2, 2, *a.shape[1:]), ""),
    ],
)
def test_layouts_and_ranges(
    change: Callable[[np.ndarray], np.ndarray], noted: str, tmp_path: Path, stack: ExitStack, rng: np.random.Generator
) -> None:
    array = levels(rng, 4, 6, 5, 3)
    given = change(array)
    np.save(tmp_path / "a.npy", given)
    found = open_pictures(tmp_path / "a.npy", stack)
    expected = array.transpose(0, 3, 1, 2) / 255
    if noted == "clipped":
        expected = np.where(array == array.max(), 1, array / 255).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(images(found), expected, atol=1e-3)
    assert len(found.items) == (2 if given.ndim == 5 else 4)
    assert (noted in " ".join(found.notes)) if noted else not found.notes


def test_grey_and_alpha(tmp_path: Path, stack: ExitStack) -> None:
    np.save(tmp_path / "grey.npy", np.full((2, 6, 5, 1), 51, np.uint8))
    assert images(open_pictures(tmp_path / "grey.npy", stack)) == pytest.approx(0.2)
    half = np.zeros((1, 6, 5, 4), np.float32)
    half[..., 3] = 0.25  # black, a quarter of it, over white
    np.save(tmp_path / "alpha.npy", half)
    assert images(open_pictures(tmp_path / "alpha.npy", stack)) == pytest.approx(0.75)


def test_pictures_by_name_are_matched_by_name(tmp_path: Path, stack: ExitStack, rng: np.random.Generator) -> None:
    np.savez(tmp_path / "a.npz", **{name: levels(rng, 6, 5, 3) for name in ("10", "2")})
    found = open_pictures(tmp_path / "a.npz", stack)
    assert found.named
    assert [item.name for item in found.items] == ["2", "10"]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 6, 5, 3), np.int64), "int64: expected uint8"),
        (np.linspace(-1, 1, 180).reshape(2, 6, 5, 3), "spans -1 to 1: expected"),
        (np.full((2, 6, 5, 3), 3.0), "spans 3 to 3: expected"),
        (np.zeros((2, 6, 6, 5), np.uint8), "expected .H, W, 3."),
        (np.zeros((2, 3, 4, 3), np.uint8), "not clear which axis"),
        (np.zeros((0, 4, 4, 3), np.uint8), "has no picture"),
        (np.zeros((4, 4), np.uint8), "expected pictures"),
        (np.array(3.0), "expected pictures"),
    ],
)
def test_what_is_no_picture_is_one_sentence(array: np.ndarray, said: str, tmp_path: Path, stack: ExitStack) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ShapeError, match=said):
        open_pictures(tmp_path / "a.npy", stack)


def test_nan_is_refused_where_it_is_read(tmp_path: Path, stack: ExitStack) -> None:
    array = np.full((2, 6, 5, 3), 0.5, np.float32)
    array[1, 2, 3, 0] = np.nan
    np.save(tmp_path / "a.npy", array)
    found = open_pictures(tmp_path / "a.npy", stack)
    found.items[0].sources[0].image()
    with pytest.raises(FileError, match=r"picture 1 of .*a\.npy holds NaN"):
        found.items[1].sources[0].image()


@pytest.mark.parametrize("suffix", WRITERS)
def test_damaged_files_are_one_sentence(suffix: str, tmp_path: Path, stack: ExitStack) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"no such file")
    with pytest.raises(FileError, match=r"a\.\w+ cannot be read .*save it again"):
        open_pictures(path, stack)
    WRITERS[suffix](path, np.zeros((2, 6, 5, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(MindDiffuserError, match="save it again"):
        open_pictures(path, stack)


def test_objects_are_never_opened(tmp_path: Path, stack: ExitStack) -> None:
    import torch

    np.save(tmp_path / "a.npy", np.array([{}, {}], dtype=object))
    with pytest.raises(FileError, match="Python objects, which are never opened"):
        open_pictures(tmp_path / "a.npy", stack)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.write(tmp_path / "a.npy", "a.npy")
    with pytest.raises(FileError, match="Python objects, which are never opened"):
        open_pictures(tmp_path / "b.npz", stack)
    torch.save({"recons": torch.zeros(2, 3, 4, 4), "path": tmp_path}, tmp_path / "c.pt")
    with pytest.raises(FileError, match="Python objects besides tensors, which are never opened"):
        open_pictures(tmp_path / "c.pt", stack)


def test_folders_and_what_is_none(tmp_path: Path, stack: ExitStack, rng: np.random.Generator) -> None:
    for name in ("cat/1", "cat/2", "dog/1"):
        write_png(tmp_path / "each" / f"{name}.png", levels(rng, 4, 4, 3))
    found = open_pictures(tmp_path / "each", stack)
    assert [(item.name, len(item.sources)) for item in found.items] == [("cat", 2), ("dog", 1)]
    with pytest.raises(FileError, match="single picture: give the folder"):
        open_pictures(tmp_path / "each" / "dog" / "1.png", stack)
    with pytest.raises(FileError, match="do not exist"):
        open_pictures(tmp_path / "none", stack)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(FileError, match="of no known kind"):
        open_pictures(tmp_path / "a.txt", stack)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="holds no"):
        open_pictures(tmp_path / "empty", stack)
    write_png(tmp_path / "twice" / "a.png", levels(rng, 4, 4, 3))
    (tmp_path / "twice" / "a.jpg").write_bytes((tmp_path / "twice" / "a.png").read_bytes())
    with pytest.raises(FileError, match="holds a more than once"):
        open_pictures(tmp_path / "twice", stack)
