"""Checkpoints that several experiments share: fitted once in the cache's folder, and linked into each of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ...runtime.command import version
from ...runtime.decoders.files import DESCRIPTION
from ...runtime.errors import FileError
from ...runtime.files import hash_of_json
from ...runtime.locks import beside, locked
from ...runtime.output import contents, replacing_folder

FOLDER = "checkpoints"


def shared_place(cache: Path, key: str) -> Path:
    """The folder in the cache of the checkpoint with this key (:func:`..fit.fit_key`), as this release fits it."""
    return cache / FOLDER / hash_of_json([version(), key])[:32]


def make_shared(place: Path, out: Path, make: Callable[[Path], object], say: Callable[[str], None]) -> bool:
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

    Returns
    -------
    bool
        Whether it was made here, and not taken as it was.

    Raises
    ------
    FileError
        The checkpoint in the cache is damaged; whatever `make` raises; or a folder cannot be written.
    """
    if out.is_dir() and contents(out):
        make(out)
        return True
    with locked(beside(place), place, wait=True, on_wait=say):
        there = (place / DESCRIPTION).exists()
        try:
            make(place)
        except FileError as error:
            if not there:
                raise
            raise FileError(f"{error}; {place} is a cache: delete that folder, and it is fitted again") from error
        with locked(beside(out), out), replacing_folder(out, DESCRIPTION) as draft:
            for name in contents(place):
                _link(place / name, draft / name)
    return not there


def _link(source: Path, target: Path) -> None:
    """Files of a finished checkpoint are never written again, only replaced: two folders may hold the same ones."""
    if source.is_dir():
        shutil.copytree(source, target)
        return
    try:
        os.link(source, target)
    except OSError:  # another drive, or one without links
        shutil.copyfile(source, target)
