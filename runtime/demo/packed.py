"""Folders that come with the package in a short form, and are written out in full where they are first used.

packed.json   the files of the folder, each with its size, its SHA-256 and the pieces that it is put together from; the
              size and SHA-256 of packed.bin
packed.bin    the bytes of those pieces that lie nowhere else

A piece is one line: ``raw OFFSET BYTES`` and ``float16 OFFSET COUNT`` (widened to float32) and ``uint16 OFFSET COUNT``
(widened to int32) are taken from packed.bin; ``world FILE TENSOR`` is a tensor of the tiny world's weights, widened to
float32, and ``world-transposed`` the same with its axes reversed; ``zeros BYTES`` stand between others. What comes out
is byte for byte the folder that was packed: an export of megabytes that the weights of the world are not stored in
twice. export/bundle/pack.py writes it.

A folder that is written out has shipped.json, which says which packed.json it is of and which files it began with. What
a person adds to it stays, such as engines that are built into its bundle.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..bundle.manifest import MANIFEST, sealed
from ..errors import FileError
from ..fields import Field
from ..files import check_format, read_json, read_tensors, replacing, sha256_of, write_json
from ..locks import beside, locked
from ..output import check_output, is_left, real, replacing_folder

KIND, VERSION = "packed", 1
INDEX, BLOB = "packed.json", "packed.bin"
MARKER, MARKER_KIND, WHAT = "shipped.json", "shipped", "folder of the shipped files"
ADVICE = "install the package again, or in a checkout: python -m minddiffuser.export.demo_files"
_WIDENED = {"float16": ("<f2", "<f4"), "uint16": ("<u2", "<i4")}
_MOST_PIECES = 1 << 20
_UNUSED_S = 24 * 3600  # a demonstration of another release that is under way opens its folder again and again


@dataclass(frozen=True)
class PackedFile:
    """One file: its bytes, their SHA-256, and the pieces that it is put together from."""

    size: int
    sha256: str
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Index:
    """packed.json, checked.

    Attributes
    ----------
    sha256
        Of packed.json itself, and so of everything that it describes.
    blob
        Size and SHA-256 of packed.bin.
    files
        By their path in the folder.
    about
        Whatever else it says.
    """

    sha256: str
    blob: tuple[int, str]
    files: Mapping[str, PackedFile]
    about: Mapping[str, Any]


def read_index(packed: Path) -> Index:
    """Read packed.json.

    Raises
    ------
    FileError
        Missing, damaged, or of another version.
    """
    path = packed / INDEX
    content = read_json(path, "the index of the shipped files")
    check_format(content, path, KIND, VERSION)
    top = Field(path, "", content, ADVICE)
    blob, listed = top.get("blob"), top.get("files")
    files = {_inside(name): _file(listed.get(name)) for name in listed.object()}
    return Index(sha256_of(path), (blob.get("size").whole(0), blob.get("sha256").sha256()), files, content)


def _file(entry: Field) -> PackedFile:
    pieces = entry.get("pieces").items(0, _MOST_PIECES, "pieces")
    return PackedFile(entry.get("size").whole(0), entry.get("sha256").sha256(), tuple(piece.text() for piece in pieces))


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    # A backslash and a colon lead outside the folder on Windows.
    if path.is_absolute() or not path.parts or ".." in path.parts or set(name) & set("\\:"):
        raise FileError(f"the index of the shipped files names {name!r}, which is outside their folder: {ADVICE}")
    return name


def unpack(packed: Path, out: Path, world: Path, *, on_wait: Callable[[str], None] | None = None) -> Path:
    """Write the packed folder out in full, or what is missing or damaged of it.

    Parameters
    ----------
    packed
        The folder of packed.json.
    out
        A folder that is new, empty, or was written by this function. What else lies in it stays.
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
        The packed files are damaged or do not fit the world, or `out` holds something else or cannot be written.
    """
    index = read_index(packed)
    place = real(out)
    check_output(place, what=WHAT, marker=MARKER, kind=MARKER_KIND)
    with locked(beside(place), out, wait=True, on_wait=on_wait):
        known = check_output(place, what=WHAT, marker=MARKER, kind=MARKER_KIND)
        wrong = [name for name in index.files if not (known and _is_right(place, name, index.files))]
        if not known:
            with replacing_folder(place, MARKER) as draft:
                _write(packed, index, wrong, draft, world)
                write_json(draft / MARKER, _marker(index))
        elif wrong:
            _write(packed, index, wrong, place, world)
        if known and read_json(place / MARKER, "the marker of the shipped files") != _marker(index):
            write_json(place / MARKER, _marker(index))
        with suppress(OSError):
            beside(place).touch()  # when it was last opened: see drop_older
    return out


def _marker(index: Index) -> dict[str, Any]:
    kind = {"format": f"minddiffuser-{MARKER_KIND}", "version": VERSION}
    return {**kind, "packed": index.sha256, "files": sorted(index.files)}


def drop_older(out: Path, name: re.Pattern[str], now: float | None = None) -> None:
    """Delete folders beside `out` that earlier releases wrote, where nobody uses them or has added anything.

    Parameters
    ----------
    out
        The folder of this release.
    name
        What the names of such folders match.
    now
        Unix time in seconds; None: the clock's. What was opened within a day of it stays.
    """
    now = time.time() if now is None else now
    for path in sorted(out.parent.iterdir()):
        if path.name == out.name or not name.fullmatch(path.name) or path.is_symlink() or not path.is_dir():
            continue
        with suppress(OSError, FileError):  # another's, in use, or on a drive that is gone: it stays
            if beside(path).is_file() and now - beside(path).stat().st_mtime > _UNUSED_S:
                with locked(beside(path), path):
                    _drop(path)


def _drop(folder: Path) -> None:
    content = read_json(folder / MARKER, "the marker of the shipped files")
    check_format(content, folder / MARKER, MARKER_KIND, VERSION)
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not (p.is_dir() or is_left(p))}
    if there <= {MARKER, *content["files"]}:
        shutil.rmtree(folder, ignore_errors=True)


def _is_right(out: Path, name: str, files: Mapping[str, PackedFile]) -> bool:
    """Whether a file is there as it was packed, or is the manifest of a bundle that engines were added to."""
    path, entry = out / name, files[name]
    if not path.is_file():
        return False
    if path.stat().st_size == entry.size and sha256_of(path) == entry.sha256:
        return True
    return path.name == MANIFEST and _has_grown(path, PurePosixPath(name).parent, files)


def _has_grown(path: Path, bundle: PurePosixPath, files: Mapping[str, PackedFile]) -> bool:
    """Whether a manifest is whole and still lists every packed file of its bundle."""
    try:
        content = read_json(path, "the bundle's manifest")
        listed = {name: entry["sha256"] for name, entry in content["files"].items()}
        if sealed({name: value for name, value in content.items() if name != "seal"}) != content:
            return False
    except (FileError, KeyError, TypeError, AttributeError, ValueError):
        return False
    packed = {
        PurePosixPath(name).relative_to(bundle).as_posix(): entry.sha256
        for name, entry in files.items()
        if PurePosixPath(name).is_relative_to(bundle) and PurePosixPath(name).name != MANIFEST
    }
    return all(listed.get(name) == sha256 for name, sha256 in packed.items())


def _write(packed: Path, index: Index, names: list[str], out: Path, world: Path) -> None:
    blob = _blob(packed / BLOB, *index.blob)

    @cache
    def tensors(name: str) -> dict[str, Any]:
        return read_tensors(world / _inside(name), "the tiny world's weights")

    for name in names:
        entry, digest = index.files[name], hashlib.sha256()
        with replacing(out / name) as draft, open(draft, "wb") as file:
            for part in _pieces(name, entry, blob, tensors):
                digest.update(part)
                file.write(part)
            if digest.hexdigest() != entry.sha256:
                raise FileError(
                    f"{name} of the shipped files in {packed} does not come out as it was packed (they are damaged, or "
                    f"were made for another tiny world than {world}): {ADVICE}"
                )


def _blob(path: Path, size: int, sha256: str) -> memoryview:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror}): {ADVICE}") from error
    if len(data) != size:
        raise FileError(f"{path} has {len(data):,} bytes and {INDEX} says {size:,}: {ADVICE}")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise FileError(f"{path} is not the file that {INDEX} describes (its SHA-256 is another): {ADVICE}")
    return memoryview(data)


def _pieces(
    name: str, entry: PackedFile, blob: memoryview, tensors: Callable[[str], dict[str, Any]]
) -> Iterator[bytes]:
    for piece in entry.pieces:
        try:
            yield _piece(piece.split(" "), entry.size, blob, tensors)
        except (KeyError, ValueError, IndexError, OverflowError) as error:
            raise FileError(
                f"the index of the shipped files makes {name} of {piece!r:.60}, which is not there: {ADVICE}"
            ) from error


def _piece(words: list[str], most: int, blob: memoryview, tensors: Callable[[str], dict[str, Any]]) -> bytes:
    kind, *words = words
    if kind in ("world", "world-transposed"):
        array = np.asarray(tensors(words[0])[words[1]], "<f4")
        return (array.T if kind == "world-transposed" else array).tobytes()
    *start, count = (_whole_text(word) for word in words)
    if count > most:
        raise ValueError("more than the whole file")
    if kind == "zeros":
        return bytes(count)
    if kind == "raw":
        return bytes(blob[start[0] : start[0] + count])
    narrow, wide = _WIDENED[kind]
    return np.frombuffer(blob[start[0] : start[0] + 2 * count], narrow).astype(wide).tobytes()


def _whole_text(word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise ValueError(f"{word!r} is no number")
    return int(word)
