"""Which trials showed the same picture, whatever its files are called."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from .errors import FileError
from .files import sha256_of
from .images import read_image


def stimulus_ids(pictures: Sequence[Path]) -> tuple[str, ...]:
    """An id of each picture by its content: size and decoded pixels, so that copies and other encodings count as one.

    A file that cannot be decoded is known by its path; whoever uses the picture says what is wrong with it.
    """
    by_path = {path: _bytes_of(path) for path in dict.fromkeys(pictures)}
    of_bytes = {digest: path for path, digest in by_path.items()}  # copies are decoded once
    by_bytes = {digest: _content(path) for digest, path in of_bytes.items()}
    return tuple(by_bytes[by_path[path]] for path in pictures)


def _bytes_of(path: Path) -> str:
    try:
        return sha256_of(path)
    except FileError:
        return str(path)


def _content(path: Path) -> str:
    try:
        image = read_image(path)
    except FileError:
        return f"unreadable {path}"
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
