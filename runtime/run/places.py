"""Where a run may write: beside what it reads, never into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import FileError
from .identity import SETTINGS


def check_places(given: Path, read: Mapping[str, Path], stimuli: Sequence[Path | None]) -> None:
    """Refuse an output folder that is, lies in, or is about to become the folder of something that the run reads.

    Parameters
    ----------
    given
        The output folder.
    read
        What is read, by its name in messages.
    stimuli
        Where pictures are read; a run folder may lie in there.

    Raises
    ------
    FileError
        The message names both.
    """
    out = given.resolve()
    for what, folder in read.items():
        if folder.is_dir() and _same_or_inside(out, folder.resolve()):
            raise FileError(f"--out {given} lies in the {what} {folder}: give a folder outside it")
    for pictures in stimuli:
        if pictures is not None and pictures.is_dir() and _is(out, pictures.resolve()):
            raise FileError(f"--out {given} is the folder of the stimuli: give another one")
    if (given / SETTINGS).is_file():
        return  # a run folder holds no file of that name which a run would write over
    for what, place in [*read.items(), *(("stimuli", place) for place in stimuli)]:
        if place is not None and place.exists() and _same_or_inside(place.resolve(), out):
            raise FileError(f"--out {given} holds the {what} {place}: give a new or empty folder")


def places_of_models(models: str | None, clip: str | None) -> dict[str, Path]:
    """What is read of the models, if they are folders, by its name in messages."""
    given = {"model folder": models, "CLIP folder": clip}
    return {what: Path(name) for what, name in given.items() if name is not None}


def _same_or_inside(path: Path, folder: Path) -> bool:
    return any(_is(part, folder) for part in (path, *path.parents))


def _is(one: Path, other: Path) -> bool:
    """Whether both are one folder; asked of the system, since some take big and small letters for the same."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet
        return one == other
