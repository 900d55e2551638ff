"""Mapped safetensors are the arrays that the library reads; whatever is wrong with the file is one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minddiffuser.runtime.data.mapped import map_tensors
from minddiffuser.runtime.errors import FileError

DTYPES = ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]


def test_every_type_and_shape(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = [(), (3,), (2, 5), (0, 4), (2, 0), (1, 2, 3)]
    arrays = {
        f"{dtype} {shape}": (rng.standard_normal(shape) * 50).astype(dtype) for dtype in DTYPES for shape in shapes
    }
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, tmp_path / "a.safetensors")
    read, mapped = load_file(tmp_path / "a.safetensors"), map_tensors(tmp_path / "a.safetensors", "the arrays")
    assert mapped.keys() == read.keys()
    for name, array in read.items():
        assert (mapped[name].dtype, mapped[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(mapped[name], array)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileError, match="the arrays is missing: .*a.safetensors does not exist"):
        map_tensors(path, "the arrays")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(FileError, match="is a Git LFS pointer and not the file itself, expected a safetensors file"):
        map_tensors(path, "the arrays")
    path.write_bytes(b"\x10" + bytes(7) + b"{" + bytes(3))
    with pytest.raises(FileError, match="truncated or damaged"):
        map_tensors(path, "the arrays")
    with pytest.raises(FileError, match="cannot be opened .*check that it is a file"):
        map_tensors(tmp_path, "the arrays")
