"""What a file really is, by its first bytes and not by its name, and what to do with it where arrays are expected."""

from __future__ import annotations

import codecs
import gzip
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SAVE = "and save the array with numpy.save"
_HEAD = 4096
_LONGEST_HEADER = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes
    ----------
    name
        In words, with its article.
    suffix
        By which a file of this kind can be given as responses; empty where it cannot.
    advice
        What to do where arrays are expected.
    """

    name: str
    suffix: str = ""
    advice: str = f"read it with the program that wrote it {_SAVE}"


NPY = FileKind("a NumPy array", ".npy", "name it .npy")
NPZ = FileKind("a NumPy archive", ".npz", "name it .npz")
SAFETENSORS = FileKind("a safetensors file", ".safetensors", "name it .safetensors")

_HDF5 = FileKind("an HDF5 file", advice=f"read it with h5py {_SAVE}")
_MATLAB = FileKind("a MATLAB file", advice=f"read it with scipy.io.loadmat {_SAVE}")
_MATLAB_73 = FileKind("a MATLAB file of version 7.3, which is HDF5", advice=f"read it with h5py, transpose it {_SAVE}")
_PICKLE = FileKind(
    "a Python pickle, which could run any code and is never opened",
    advice="save the array with numpy.save where it was made",
)
_PYTORCH = FileKind("a PyTorch file, which is never opened", advice="save the tensor with numpy.save(name, x.numpy())")
_NIFTI = FileKind("a NIfTI image", advice="extract the voxels of each trial (nibabel, nilearn) and save them as .npy")
_LFS = FileKind("a Git LFS pointer and not the file itself", advice="fetch the file with git lfs pull")
_HTML = FileKind("a web page, perhaps of a failed download", advice="download the file again")
_JSON = FileKind("a JSON text", advice=f"read it with json.load {_SAVE}")
_TABLE = FileKind("a table in text", advice="read it with numpy.loadtxt or pandas and save the numbers as float32 .npy")
_TEXT = FileKind("a text", advice="give the array file itself")
_EMPTY = FileKind("empty", advice="copy or save it again")
_PICTURE = FileKind("a picture", advice="give the responses; pictures go to --stimuli or into a data folder")

_MAGIC: tuple[tuple[bytes, FileKind], ...] = (
    (b"\x93NUMPY", NPY),
    (b"MATLAB 7.3 MAT-file", _MATLAB_73),
    (b"MATLAB 5.0 MAT-file", _MATLAB),
    (b"\x89PNG\r\n\x1a\n", _PICTURE),
    (b"\xff\xd8\xff", _PICTURE),
    (b"PAR1", FileKind("a Parquet table", advice=f"read it with pandas.read_parquet {_SAVE}")),
    (b"ARROW1", FileKind("a Feather table", advice=f"read it with pandas.read_feather {_SAVE}")),
    (b"BZh", FileKind("compressed with bzip2", advice="unpack it first")),
    (b"\xfd7zXZ\x00", FileKind("compressed with xz", advice="unpack it first")),
    (b"7z\xbc\xaf\x27\x1c", FileKind("a 7-Zip archive", advice="unpack it first")),
    (b"\x28\xb5\x2f\xfd", FileKind("compressed with Zstandard", advice="unpack it first")),
    (b"version https://git-lfs", _LFS),
)


def recognise(path: Path) -> FileKind | None:
    """What a file is, or None where its first bytes are not recognised.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if not head:
        return _EMPTY
    for start, kind in _MAGIC:
        if head.startswith(start):
            return kind
    tests: tuple[Callable[[bytes, Path], FileKind | None], ...] = (_hdf5, _zip, _gzip, _nifti, _safetensors, _pickle)
    found = (test(head, path) for test in tests)
    return next((kind for kind in found if kind is not None), None) or _text(head)


def _hdf5(head: bytes, _path: Path) -> FileKind | None:
    # A block of the user's own may stand before it, of 512 bytes or a power of two more.
    places = (0, 512, 1024, 2048)
    return _HDF5 if any(head[at : at + 8] == b"\x89HDF\r\n\x1a\n" for at in places) else None


def _zip(head: bytes, path: Path) -> FileKind | None:
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        # Truncated: of an archive of arrays the reader says so.
        return NPZ if b".npy" in head[:300] else FileKind("a damaged zip archive", advice="copy or save it again")
    if any(name.endswith("data.pkl") for name in names):
        return _PYTORCH
    if "[Content_Types].xml" in names:
        return FileKind("an Excel or Word file", advice=f"read it with pandas.read_excel {_SAVE}")
    if not names or any(name.endswith(".npy") for name in names):
        return NPZ
    return FileKind("a zip archive", advice="unpack it first")


def _gzip(head: bytes, path: Path) -> FileKind | None:
    if not head.startswith(b"\x1f\x8b"):
        return None
    try:
        with gzip.open(path) as file:
            inner = file.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        inner = b""
    return _nifti(inner, path) or FileKind("compressed with gzip", advice="unpack it first")


def _nifti(head: bytes, _path: Path) -> FileKind | None:
    return _NIFTI if head[344:348] in (b"n+1\x00", b"ni1\x00") or head[4:8] in (b"n+2\x00", b"ni2\x00") else None


def _pickle(head: bytes, path: Path) -> FileKind | None:
    if len(head) < 2 or head[0] != 0x80 or not 2 <= head[1] <= 5:
        return None
    with open(path, "rb") as file:
        file.seek(-1, 2)
        ends = file.read(1) == b"."  # the stop code
    return _PICKLE if ends or head[2:3] in (b"\x95", b"c", b"}", b"]") else None


def _safetensors(head: bytes, path: Path) -> FileKind | None:
    length = int.from_bytes(head[:8], "little")
    return SAFETENSORS if head[8:9] == b"{" and 2 <= length <= _LONGEST_HEADER else None


def _text(head: bytes) -> FileKind | None:
    try:
        # The last character of a longer file may be cut in two.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head, final=len(head) < _HEAD)
    except UnicodeDecodeError:
        return None
    if not text.isprintable() and any(ord(sign) < 32 and sign not in "\t\r\n\f" for sign in text):
        return None
    if text.lstrip().lower().startswith(("<!doctype html", "<html")):
        return _HTML
    if text.lstrip().startswith(("{", "[")) and _is_json(text):
        return _JSON
    lines = [line for line in text.splitlines() if line.strip()]
    if any(sign in line for line in lines[:2] for sign in ",;\t") or _is_number(lines[0].split()[0] if lines else ""):
        return _TABLE
    return _TEXT


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return len(text) >= _HEAD // 4  # cut off
    return True


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
