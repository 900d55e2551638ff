"""A folder with a bundle in it becomes the short form that ships with the package; runtime/demo/packed.py reads it.

Nothing is rounded: a weight becomes float16 where that is what it is, and a reference where the tiny world's own files
hold it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from ...runtime.demo.packed import BLOB, INDEX, KIND, VERSION
from ...runtime.files import read_tensors, sha256_of, write_bytes, write_json

Array = NDArray[Any]
_DTYPES = {TensorProto.FLOAT: "<f4", TensorProto.INT32: "<i4"}


def pack(folder: Path, out: Path, world: Path, about: Mapping[str, Any]) -> None:
    """Write packed.json and packed.bin.

    Parameters
    ----------
    folder
        Whose files are packed; the weights of its ONNX graphs may lie in files beside them.
    out
        Where the two files go.
    world
        The tiny world's model folder, whose float16 weights are referred to and not stored again.
    about
        What goes into packed.json besides the files.

    Raises
    ------
    FileError
        A file cannot be read or written.
    """
    blob, known, weights = _Blob(), _world_tensors(world), _weights(folder)
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        data, name = path.read_bytes(), path.relative_to(folder).as_posix()
        pieces = list(_pieces(data, weights.get(path, {}), known, blob))
        files[name] = {"size": len(data), "sha256": sha256_of(path), "pieces": pieces}
    write_bytes(out / BLOB, bytes(blob.data))
    stored = {"size": len(blob.data), "sha256": _digest(bytes(blob.data)).hex()}
    description = {"format": f"minddiffuser-{KIND}", "version": VERSION, **about, "blob": stored, "files": files}
    write_json(out / INDEX, description)


class _Blob:
    """Bytes, each content once."""

    def __init__(self) -> None:
        self.data, self._places = bytearray(), dict[bytes, int]()

    def add(self, content: bytes) -> int:
        digest = hashlib.sha256(content).digest()
        if digest not in self._places:
            self._places[digest] = len(self.data)
            self.data += content
        return self._places[digest]


def _world_tensors(world: Path) -> dict[bytes, str]:
    """SHA-256 of each float16 tensor's float32 bytes, and of the same with its axes reversed, to the piece it is."""
    found: dict[bytes, str] = {}
    for path in sorted(world.rglob("*.safetensors")):
        for tensor, array in sorted(read_tensors(path, "the tiny world's weights").items()):
            wide = np.asarray(array, "<f4")
            place = f"{path.relative_to(world).as_posix()} {tensor}"
            found.setdefault(_digest(wide.T.tobytes()), f"world-transposed {place}")
            found[_digest(wide.tobytes())] = f"world {place}"
    return found


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _weights(folder: Path) -> dict[Path, dict[int, tuple[int, str | None]]]:
    """File of weights -> offset -> (bytes, numpy's name of the type or None), of everything that graphs keep there."""
    found: dict[Path, dict[int, tuple[int, str | None]]] = {}
    for path in sorted(folder.rglob("*.onnx")):
        for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                place = {entry.key: entry.value for entry in tensor.external_data}
                spans = found.setdefault(path.parent / place["location"], {})
                spans[int(place["offset"])] = (int(place["length"]), _DTYPES.get(tensor.data_type))
    return found


def _pieces(
    data: bytes, spans: Mapping[int, tuple[int, str | None]], known: Mapping[bytes, str], blob: _Blob
) -> Iterator[str]:
    at = 0
    for start, (length, dtype) in sorted(spans.items()):
        yield from _raw(data[at:start], blob)
        yield from _tensor(data[start : start + length], dtype, known, blob)
        at = start + length
    yield from _raw(data[at:], blob)


def _raw(data: bytes, blob: _Blob) -> Iterator[str]:
    if data and not any(data):
        yield f"zeros {len(data)}"
    elif data:
        yield f"raw {blob.add(data)} {len(data)}"


def _tensor(data: bytes, dtype: str | None, known: Mapping[bytes, str], blob: _Blob) -> Iterator[str]:
    if _digest(data) in known:
        yield known[_digest(data)]
        return
    narrow = None if dtype is None else _narrowed(np.frombuffer(data, dtype))
    if narrow is None:
        yield from _raw(data, blob)
    else:
        kind = "float16" if narrow.dtype.kind == "f" else "uint16"
        yield f"{kind} {blob.add(narrow.tobytes())} {narrow.size}"


def _narrowed(array: Array) -> Array | None:
    """The same numbers in half the bytes, where they are the same."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = array.astype("<f2" if array.dtype.kind == "f" else "<u2")
    return narrow if narrow.astype(array.dtype).tobytes() == array.tobytes() else None
