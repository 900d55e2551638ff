"""Which trials showed the same picture, whatever its files are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import FileError
from ..files import sha256_of
from ..images import pixel_hash, read_image
from .references import Reference


def stimulus_ids(pictures: Sequence[Path | Reference]) -> tuple[str, ...]:
    """An id of each picture by its content: size and decoded pixels, so that copies and other encodings count as one.

    A file that cannot be decoded is known by its path; whoever uses the picture says what is wrong with it. A picture
    that is named where it lies is known by the hash of its pixels that stands there, which is checked when it is read.
    """
    by_path = {path: _bytes_of(path) for path in dict.fromkeys(pictures)}
    of_bytes = {digest: path for path, digest in by_path.items()}  # copies are decoded once
    by_bytes = {digest: _content(path) for digest, path in of_bytes.items()}
    return tuple(by_bytes[by_path[path]] for path in pictures)


def _bytes_of(path: Path | Reference) -> str:
    if isinstance(path, Reference):
        return f"pixels {path.sha256}"
    try:
        return sha256_of(path)
    except FileError:
        return str(path)


def _content(path: Path | Reference) -> str:
    if isinstance(path, Reference):
        return path.sha256
    try:
        return pixel_hash(read_image(path))
    except FileError:
        return f"unreadable {path}"
