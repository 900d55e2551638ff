"""The files that a signal chain names, such as a whitening matrix, as checkpoints and bundles keep them.

A data folder holds them beside data.json; a checkpoint and a bundle have files of their own, so there they lie in the
folder `signal`. Their SHA-256 stands in the chain and in the list of all files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FileError
from ..files import cannot_open, write_bytes
from ..output import draft_of
from .chain import files_of

FOLDER = "signal"


def listed_files(chain: Mapping[str, Any] | None) -> dict[str, str]:
    """Path inside a checkpoint or bundle -> SHA-256, of every file that a checked chain names."""
    return {f"{FOLDER}/{name}": digest for name, digest in files_of(chain).items()}


def copy_files(chain: Mapping[str, Any] | None, source: Path, folder: Path) -> None:
    """Copy what a checked chain names from `source` into the folder `signal` of a checkpoint or bundle.

    The caller holds the right to write `folder`.

    Raises
    ------
    FileError
        A file is missing, cannot be read or written, or has another SHA-256 than the chain states.
    """
    place = folder / FOLDER
    for name, digest in files_of(chain).items():
        try:
            data = (source / name).read_bytes()
        except OSError as error:
            raise cannot_open("the signal chain's file", source / name, error) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise FileError(f"{source / name} has another SHA-256 than the signal chain states: copy the right one")
        write_bytes(place / name, data)
        for left in place.glob(".*"):  # of a process that was killed
            if draft_of(left.name) == name:
                left.unlink(missing_ok=True)
