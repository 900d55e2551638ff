"""Folders and files of pictures, ours or another tool's: what is in them, by name."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError
from ..files import natural
from ..images import SUFFIXES, list_pictures
from ..metrics.sources import PictureFile, Source
from ..output import is_leftover
from .arrays import READERS, open_arrays


@dataclass(frozen=True, eq=False)
class Item:
    """The pictures that go by one name: one, or several of one stimulus."""

    name: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """What a person gave.

    Attributes
    ----------
    where
        The path, for messages.
    items
        In the order of their names, or of the array.
    named
        Whether the names mean anything; in an array they are just the rows.
    notes
        Sentences on how it was read.
    """

    where: str
    items: tuple[Item, ...]
    named: bool = True
    notes: tuple[str, ...] = ()


def open_pictures(path: Path, stack: ExitStack) -> Pictures:
    """Open a folder of pictures, a folder with one folder per stimulus, or an array file.

    Parameters
    ----------
    path
        See :func:`.arrays.open_arrays` for array files.
    stack
        Closes what is opened.

    Raises
    ------
    FileError, ShapeError, MissingExtra
        Missing, damaged, without pictures, or two pictures of one name.
    """
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise FileError(f"the pictures {path} do not exist: give a folder of pictures, a run folder or an array file")
    if path.suffix.lower() in SUFFIXES:
        raise FileError(f"{path} is a single picture: give the folder that holds it")
    if path.suffix.lower() not in READERS:
        raise FileError(f"{path} is of no known kind: give a folder of pictures, or a {', '.join(READERS)} file")
    found = open_arrays(path, stack)
    names = found.names or tuple(map(str, range(len(found.pictures))))
    items = tuple(Item(name, pictures) for name, pictures in zip(names, found.pictures, strict=True))
    return Pictures(where=str(path), items=items, named=found.names is not None, notes=found.notes)


def _folder(path: Path) -> Pictures:
    try:
        entries = [entry for entry in path.iterdir() if not entry.name.startswith(".") and not is_leftover(entry.name)]
    except OSError as error:
        raise FileError(f"the picture folder {path} cannot be read ({error.strerror}): check the path") from error
    folders = sorted((entry for entry in entries if entry.is_dir()), key=lambda one: natural(one.name))
    if folders and not any(entry.suffix.lower() in SUFFIXES for entry in entries):
        return Pictures(where=str(path), items=tuple(_of_stimulus(folder) for folder in folders))
    pictures = list_pictures(path)
    twice = [name for name, count in Counter(one.stem for one in pictures).items() if count > 1]
    if twice:
        raise FileError(f"{path} holds {twice[0]} more than once, with other endings: leave one of them")
    return Pictures(where=str(path), items=tuple(Item(one.stem, (PictureFile(one),)) for one in pictures))


def _of_stimulus(folder: Path) -> Item:
    return Item(folder.name, tuple(PictureFile(one) for one in list_pictures(folder)))
