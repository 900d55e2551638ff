"""Checkpoints that several experiments share: fitted once in the cache's folder, and linked into each of them.

Which one it is follows from the data, the models and the settings. The fit compares all that decides its numbers once
more, so that a folder that holds another one is refused and never taken.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...runtime.decoders.files import DESCRIPTION
from ...runtime.files import hash_of_json
from ...runtime.locks import beside, locked
from ...runtime.output import contents, replacing_folder

FOLDER = "checkpoints"


def shared_place(cache: Path, decided_by: Mapping[str, Any]) -> Path:
    """The folder in the cache of the checkpoint that `decided_by` (JSON) describes."""
    return cache / FOLDER / hash_of_json(decided_by)[:32]


def make_shared(place: Path, out: Path, make: Callable[[Path], object], say: Callable[[str], None]) -> None:
    """Make a checkpoint in `place` unless it is there, and link its files into `out`, or copy where no links can be.

    A checkpoint that was begun in `out` itself is finished there.

    Parameters
    ----------
    place
        See :func:`shared_place`. While another experiment makes it, it is waited for.
    out
        Where the checkpoint is to be.
    make
        Makes the checkpoint in the folder that it is given, or goes on with it; checks one that is finished.
    say
        Receives one line where there is something to wait for.

    Raises
    ------
    FileError
        Whatever `make` raises, or a folder cannot be written.
    """
    if out.is_dir() and contents(out):
        make(out)
        return
    with locked(beside(place), place, wait=True, on_wait=say):
        make(place)
        with locked(beside(out), out), replacing_folder(out, DESCRIPTION) as draft:
            for name in contents(place):
                _link(place / name, draft / name)


def _link(source: Path, target: Path) -> None:
    """Files of a finished checkpoint are never written again, only replaced: two folders may hold the same ones."""
    if source.is_dir():
        shutil.copytree(source, target)
        return
    try:
        os.link(source, target)
    except OSError:  # another drive, or one without links
        shutil.copyfile(source, target)
