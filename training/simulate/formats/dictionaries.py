"""Dictionaries in the two forms of THINGS-EEG2's files: as numpy.save writes one, and as pickle.dump does.

Written instruction by instruction (protocol 4), so that an array is filled in its place in the file and never in memory
as a whole. training/datasets/restricted.py reads them, and so does everybody's pickle.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

FORMS = ("np.save", "pickle")
_RECONSTRUCT = ("numpy.core.multiarray", "_reconstruct")


@dataclass(frozen=True)
class Later:
    """A float64 array of this shape that is filled in once the file is there."""

    shape: tuple[int, ...]


def write_dictionary(path: Path, content: Mapping[str, Any], form: str) -> dict[str, NDArray[np.float64]]:
    """Write a dictionary of texts, numbers, lists of texts and float64 arrays.

    Parameters
    ----------
    path : the file.
    content : name to value; a :class:`Later` is left as zeros.
    form : "np.save" or "pickle".

    Returns
    -------
    Name to a writable map of the file, of every :class:`Later`; flush them in the end.
    """
    places: dict[str, int] = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        if form == "np.save":
            np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(b"\x80\x04")
        if form == "np.save":  # an array of one object, whose state is a list
            _array_start(file, ())
            file.write(_dtype("O8", "|") + b"\x89](")
        file.write(b"}(")
        for name, value in content.items():
            file.write(_text(name))
            _value(file, name, value, places)
        file.write(b"u")
        if form == "np.save":
            file.write(b"etb")
        file.write(b".")
    laters = {name: value for name, value in content.items() if isinstance(value, Later)}
    return {name: np.memmap(path, np.float64, "r+", places[name], value.shape) for name, value in laters.items()}


def _value(file: BinaryIO, name: str, value: Any, places: dict[str, int]) -> None:
    if isinstance(value, Later | np.ndarray):
        _array_start(file, value.shape)
        n_bytes = 8 * math.prod(value.shape)
        file.write(_dtype("f8", "<") + b"\x89\x8e" + struct.pack("<Q", n_bytes))
        places[name] = file.tell()
        if isinstance(value, Later):
            file.seek(n_bytes, 1)  # a hole of zeros
        else:
            file.write(np.ascontiguousarray(value, "<f8").data)
        file.write(b"tb")
    elif isinstance(value, list):
        file.write(b"](" + b"".join(map(_text, value)) + b"e")
    elif isinstance(value, float):
        file.write(b"G" + struct.pack(">d", value))
    elif isinstance(value, int):
        file.write(b"J" + struct.pack("<i", value))
    else:
        file.write(_text(value))


def _array_start(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """An array up to its shape; its dtype, its order and its numbers follow."""
    sizes = b"".join(b"J" + struct.pack("<i", size) for size in shape)
    new = _name(*_RECONSTRUCT) + _name("numpy", "ndarray") + b"K\x00\x85" + b"C\x01b" + b"\x87R"
    file.write(new + b"(K\x01(" + sizes + b"t")


def _dtype(kind: str, order: str) -> bytes:
    flags = 63 if kind == "O8" else 0
    state = b"(K\x03" + _text(order) + b"NNN" + 2 * (b"J" + struct.pack("<i", -1)) + b"K" + bytes([flags]) + b"tb"
    return _name("numpy", "dtype") + _text(kind) + b"\x89\x88\x87R" + state


def _name(module: str, name: str) -> bytes:
    return _text(module) + _text(name) + b"\x93"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data
