"""A file is known by its first bytes; the files come from the programs that write them, or from their documentation."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from scipy.io import savemat

from minddiffuser.runtime.data.recognise import NPY, NPZ, SAFETENSORS, recognise
from minddiffuser.runtime.images import png_bytes

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
HDF5 = b"\x89HDF\r\n\x1a\n"
NIFTI = bytes(344) + b"n+1\x00" + bytes(8)


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


NPY_BYTES = written(lambda file: np.save(file, ROWS))
NPZ_BYTES = written(lambda file: np.savez(file, responses=ROWS))


@pytest.mark.parametrize(
    ("content", "kind"),
    [(NPY_BYTES, NPY), (NPZ_BYTES, NPZ), (NPZ_BYTES[:-9], NPZ), (save({"r": ROWS}), SAFETENSORS)],
    ids=["npy", "npz", "truncated npz", "safetensors"],
)
def test_what_can_be_opened(tmp_path: Path, content: bytes, kind: object) -> None:
    (tmp_path / "x").write_bytes(content)
    assert recognise(tmp_path / "x") is kind


OTHERS: dict[str, tuple[bytes, str]] = {
    "hdf5": (HDF5 + bytes(90), "HDF5"),
    "hdf5 behind 512 bytes": (bytes(512) + HDF5, "HDF5"),
    "matlab 5": (written(lambda file: savemat(file, {"r": ROWS})), "a MATLAB file"),
    "matlab 7.3": (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + HDF5, "7.3, which is HDF5"),
    **{f"pickle {n}": (pickle.dumps({"a": ROWS}, protocol=n), "pickle") for n in (2, 3, 4, 5)},
    "zip": (zipped("notes.txt"), "a zip archive"),
    "pytorch": (zipped("archive/data.pkl"), "PyTorch"),
    "excel": (zipped("[Content_Types].xml"), "Excel"),
    "half a zip": (zipped("notes.txt")[:40], "a damaged zip archive"),
    "gzip": (gzip.compress(b"abc"), "gzip"),
    "nifti": (NIFTI, "NIfTI"),
    "nifti.gz": (gzip.compress(NIFTI), "NIfTI"),
    "half a gzip": (gzip.compress(b"abc")[:12], "gzip"),
    "bzip2": (bz2.compress(b"abc"), "bzip2"),
    "xz": (lzma.compress(b"abc"), "xz"),
    "png": (png_bytes(np.zeros((4, 4, 3), np.uint8)), "picture"),
    "csv": (b"V1,V2\n1,2\n", "a table"),
    "semicolons": ("Größe;V2\n1;2\n".encode(), "a table"),
    "csv of a spreadsheet": ("V1\t".encode("utf-8-sig") + b"V2\r\n", "a table"),
    "numbers": (b"0.5 1e-3 nan\n" * 900, "a table"),
    "json": (b'{"responses": [[1, 2]]}', "JSON"),
    "html": (b"\n<!DOCTYPE html>\n<html>", "a web page"),
    "text": (b"see the wiki\n", "a text"),
    "cut character": (("ä" * 5000).encode()[1:], ""),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "empty": (b"", "empty"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_cannot_be_opened(tmp_path: Path, name: str) -> None:
    content, words = OTHERS[name]
    (tmp_path / "x").write_bytes(content)
    kind = recognise(tmp_path / "x")
    assert (words == "") == (kind is None)
    if kind is not None:
        assert words in kind.name
        assert kind.suffix == ""
        assert kind.advice


def test_noise_is_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        (tmp_path / "x").write_bytes(b"\x00" + rng.bytes(200))
        assert recognise(tmp_path / "x") is None
