"""Where a run may write: beside what it reads, never into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileError
from .identity import SETTINGS

if TYPE_CHECKING:
    from ..job import Job


def check_places(job: Job) -> None:
    """Refuse an output folder that is, lies in, or is about to become the folder of something that the run reads.

    Raises
    ------
    FileError
        The message names both.
    """
    read = {"checkpoint or bundle": job.checkpoint, "data folder": job.responses}
    read |= {"model folder": Path(job.models)} if job.models is not None else {}
    read |= {"CLIP folder": Path(job.clip)} if job.clip is not None else {}
    out = job.out.resolve()
    for what, folder in read.items():
        if folder.is_dir() and _same_or_inside(out, folder.resolve()):
            raise FileError(f"--out {job.out} lies in the {what} {folder}: give a folder outside it")
    for pictures in (job.stimuli, job.stimuli_root):
        if pictures is not None and pictures.is_dir() and _is(out, pictures.resolve()):
            raise FileError(f"--out {job.out} is the folder of the stimuli: give another one")
    if (job.out / SETTINGS).is_file():
        return  # a run folder holds no file of that name which a run would write over
    for what, place in {**read, "stimuli": job.stimuli, "responses": job.responses}.items():
        if place is not None and place.exists() and _same_or_inside(place.resolve(), out):
            raise FileError(f"--out {job.out} holds the {what} {place}: give a new or empty folder")


def _same_or_inside(path: Path, folder: Path) -> bool:
    return any(_is(part, folder) for part in (path, *path.parents))


def _is(one: Path, other: Path) -> bool:
    """Whether both are one folder; asked of the system, since some take big and small letters for the same."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return one == other
