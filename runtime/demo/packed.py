"""Folders that come with the package in a short form, and are written out in full where they are first used.

packed.json   the files of the folder, each with its size, its SHA-256 and the pieces that it is put together from
packed.bin    the bytes of those pieces that lie nowhere else

A piece is one line: ``raw OFFSET BYTES`` and ``float16 OFFSET COUNT`` (widened to float32) and ``uint16 OFFSET COUNT``
(widened to int32) are taken from packed.bin; ``world FILE TENSOR`` is a tensor of the tiny world's weights, widened to
float32, and ``world-transposed`` the same with its axes reversed; ``zeros BYTES`` stand between others. What comes out
is byte for byte the folder that was packed: an export of megabytes that the weights of the world are not stored in
twice. export/bundle/pack.py writes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import FileError
from ..files import check_format, read_json, read_tensors, sha256_of
from ..locks import beside, locked

KIND, VERSION = "packed", 1
INDEX, BLOB = "packed.json", "packed.bin"
_WIDENED = {"float16": ("<f2", "<f4"), "uint16": ("<u2", "<i4")}
ADVICE = "install the package again, or in a checkout: python -m minddiffuser.export.demo_files"


def read_index(packed: Path) -> dict[str, Any]:
    """Read packed.json.

    Raises
    ------
    FileError
        Missing, damaged, or of another version.
    """
    index = read_json(packed / INDEX, "the index of the shipped files")
    check_format(index, packed / INDEX, KIND, VERSION)
    return index


def unpack(packed: Path, out: Path, world: Path, *, on_wait: Callable[[str], None] | None = None) -> Path:
    """Write the packed folder out in full, unless it is there whole already.

    Parameters
    ----------
    packed
        The folder of packed.json.
    out
        A folder of its own, replaced where it is not what packed.json describes.
    world
        The tiny world's model folder.
    on_wait
        Receives one line where another process is writing `out`.

    Returns
    -------
    `out`.

    Raises
    ------
    FileError
        The packed files are damaged or do not fit the world, or `out` cannot be written.
    """
    files = read_index(packed)["files"]
    with locked(beside(out), out, wait=True, on_wait=on_wait):
        if _is_whole(out, files):
            return out
        draft = out.with_name(f".{out.name}.{os.getpid()}.draft")
        try:
            _write(packed, files, draft, world)
            shutil.rmtree(out, ignore_errors=True)
            draft.rename(out)
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"{out} cannot be written ({error.strerror or error}): free some space") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return out


def _is_whole(out: Path, files: dict[str, Any]) -> bool:
    """Whether every file is there as it was packed; a few tens of megabytes are read."""
    there = [(out / name, entry) for name, entry in files.items()]
    return all(path.is_file() and path.stat().st_size == entry["size"] for path, entry in there) and all(
        sha256_of(path) == entry["sha256"] for path, entry in there
    )


def _write(packed: Path, files: dict[str, Any], draft: Path, world: Path) -> None:
    try:
        blob = memoryview((packed / BLOB).read_bytes())
    except OSError as error:
        raise FileError(f"{packed / BLOB} cannot be read ({error.strerror}): {ADVICE}") from error

    @cache
    def tensors(name: str) -> dict[str, Any]:
        return read_tensors(world / name, "the tiny world's weights")

    for name, entry in files.items():
        path = draft / _inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with open(path, "wb") as file:
            for part in _pieces(entry["pieces"], blob, tensors):
                digest.update(part)
                file.write(part)
        if digest.hexdigest() != entry["sha256"]:
            raise FileError(
                f"{name} of the shipped files in {packed} does not come out as it was packed (they are damaged, or "
                f"were made for another tiny world than {world}): {ADVICE}"
            )


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise FileError(f"the index of the shipped files names {name!r}, which is outside their folder: {ADVICE}")
    return path


def _pieces(pieces: list[str], blob: memoryview, tensors: Callable[[str], dict[str, Any]]) -> Iterator[bytes]:
    for piece in pieces:
        kind, *words = piece.split(" ")
        if kind == "zeros":
            yield bytes(int(words[0]))
        elif kind == "raw":
            start, length = map(int, words)
            yield bytes(blob[start : start + length])
        elif kind in _WIDENED:
            narrow, wide = _WIDENED[kind]
            start, count = map(int, words)
            yield np.frombuffer(blob[start : start + 2 * count], narrow).astype(wide).tobytes()
        else:
            array = np.asarray(tensors(words[0])[words[1]], "<f4")
            yield (array.T if kind == "world-transposed" else array).tobytes()
