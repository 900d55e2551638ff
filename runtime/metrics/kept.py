"""What was measured before, in one file beside the pictures, so that pictures that stayed are not measured again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

from ..errors import FileError
from ..files import read_tensors, write_tensors
from .base import Array

_DIGEST = 32  # bytes of a SHA-256
_CHECK = "check"


class Kept:
    """Rows of numbers by what made them and what they were made of.

    A row belongs to an identity (a metric or an extractor, and its code) and a key (the hashes of the files that went
    in). A file that is missing, damaged or changed by hand counts as empty: everything in it can be measured again.

    Parameters
    ----------
    path
        The file; read now, written by :meth:`save`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._there = _read(path)
        self._used: dict[str, dict[bytes, Array]] = {}
        self._changed = False

    def get(self, identity: str, key: bytes) -> Array | None:
        """A kept row, or None."""
        name = _digest(identity.encode()).hex()
        row = self._used.get(name, {}).get(key)
        if row is None and (row := self._there.get(name, {}).get(key)) is not None:
            self._used.setdefault(name, {})[key] = row
        return row

    def rows(self, identity: str, keys: Iterable[bytes]) -> Array:
        """The rows of these keys, (n, ...), each of which was requested or put before."""
        used = self._used[_digest(identity.encode()).hex()]
        return np.stack([used[key] for key in keys])

    def put(self, identity: str, key: bytes, row: Array) -> None:
        """Keep a row, of the same shape and type as the identity's others."""
        self._used.setdefault(_digest(identity.encode()).hex(), {})[key] = np.asarray(row)
        self._changed = True

    def save(self, *, all_used: bool) -> None:
        """Write the file; with `all_used`, rows neither requested nor put (of other pictures, say) are dropped."""
        tables = self._used
        if not all_used:
            names = self._there.keys() | self._used.keys()
            tables = {name: {**self._there.get(name, {}), **self._used.get(name, {})} for name in names}
        if self._changed or (all_used and _size(tables) != _size(self._there)):
            _write(self._path, tables)
            self._there, self._changed = tables, False


def key_of(*digests: str) -> bytes:
    """The key of what was made of files with these hexadecimal hashes, in this order."""
    return _digest(b"".join(bytes.fromhex(digest) for digest in digests))


@cache
def code_identity() -> str:
    """A hash of what measures, of this code and of numpy's version: a corrected metric measures anew."""
    digest = hashlib.sha256(np.__version__.encode())
    for path in sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def sources() -> list[Path]:
    """The files whose code decides what is measured: this package's, and what reads and enlarges pictures."""
    here = Path(__file__).parent
    return [*sorted(here.rglob("*.py")), here.parent / "images.py", here.parent / "resampling.py"]


def _size(tables: Mapping[str, Mapping[bytes, Array]]) -> int:
    return sum(map(len, tables.values()))


def _read(path: Path) -> dict[str, dict[bytes, Array]]:
    try:
        arrays = read_tensors(path, "what was measured before")
    except FileError:
        return {}
    check = arrays.pop(_CHECK, None)
    if check is None or check.tobytes() != _check(arrays):
        return {}
    names = {name.partition(".")[0] for name in arrays}
    return {name: dict(zip(map(bytes, arrays[f"{name}.keys"]), arrays[f"{name}.rows"], strict=True)) for name in names}


def _write(path: Path, tables: Mapping[str, Mapping[bytes, Array]]) -> None:
    arrays: dict[str, Array] = {}
    for name, rows in tables.items():
        keys = sorted(rows)
        if keys:
            arrays[f"{name}.keys"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, _DIGEST)
            arrays[f"{name}.rows"] = np.stack([rows[key] for key in keys])
    write_tensors(path, {**arrays, _CHECK: np.frombuffer(_check(arrays), np.uint8)})


def _check(arrays: Mapping[str, Array]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return digest.digest()


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
