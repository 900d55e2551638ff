"""Write a simulated subject in a format of other people's, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ....runtime.locks import beside as lock_of
from ....runtime.locks import locked
from ....runtime.output import check_free, check_place, real, replacing_folder
from ..base import OnProgress, SimulatedSubject
from . import FORMATS


def check_target(out: Path) -> None:
    """Refuse a place that cannot be written or is not empty; call it before the work.

    Raises
    ------
    FileError
        It is a file, cannot be written, or holds something.
    """
    check_free(out, "folder of simulated files")
    check_place(out, f".{real(out).name}.00000.draft", beside=True)


def write_subject(
    name: str, out: Path, make: Callable[[OnProgress], SimulatedSubject], *, progress: OnProgress
) -> Path:
    """Make a subject and write it in a format of `FORMATS`.

    Parameters
    ----------
    name : of the format.
    out : a new or empty folder.
    make : makes the subject, with progress; called once the place is held.
    progress : called with (phase, done, total).

    Returns
    -------
    `out`.

    Raises
    ------
    FileError
        As of :func:`check_target`, or another process is writing there, or the disk is full.
    """
    with locked(lock_of(real(out)), out):
        check_target(out)
        subject = make(progress)
        with replacing_folder(out, "", check=lambda: check_target(out)) as draft:
            import_module(f".{FORMATS[name].module}", __package__).write(draft, subject, progress=progress)
    return out
