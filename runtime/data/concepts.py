"""Concepts: what a picture is of, as one name ("aardvark"), as the THINGS pictures have; and lists of such names."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import FileError, shown
from ..files import read_json
from .json_types import is_label

CONCEPTS = "concepts.json"


def check_concepts(concepts: object, split: str, source: str) -> tuple[str, ...]:
    """Refuse the concepts of one split that are not a list of names; how many there are is not looked at.

    Raises
    ------
    FileError
        They are not; the message names the first fault.
    """
    if not isinstance(concepts, list | tuple):
        raise FileError(f"concepts of {split} in {source} are {shown(concepts)}: give a list with one name per picture")
    for index, name in enumerate(concepts):
        _check_name(name, f"the concept of {split} picture {index} in {source}")
    return tuple(concepts)


def check_count(n_given: int, n_stimuli: int, split: str, source: str) -> None:
    """Refuse concepts of some pictures only.

    Raises
    ------
    FileError
        There are others than none or one per picture.
    """
    if n_given not in (0, n_stimuli):
        raise FileError(
            f"{source} has concepts for {n_given} {split} stimuli, and there are {n_stimuli} pictures: give one name "
            "per picture, or none for the split"
        )


def folder_concepts(folder: Path, splits: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The concepts of each split of a data folder, from its concepts.json; none without it.

    Raises
    ------
    FileError
        The file does not hold a list of names for each split.
    """
    path = folder / CONCEPTS
    if not path.exists():
        return dict.fromkeys(splits, ())
    content = read_json(path, "the data folder's concepts")
    return {split: check_concepts(content.get(split), split, str(path)) for split in splits}


def read_concepts(path: Path) -> tuple[str, ...]:
    """Read a person's list of concepts: one per line, or in a .json file a list of texts.

    Empty lines are passed over.

    Raises
    ------
    FileError
        The file is missing, is no text, has no name or one twice.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"the concepts {path} are not UTF-8 text ({error.reason}): save them as UTF-8") from error
    except OSError as error:
        raise FileError(
            f"the concepts {path} cannot be read ({error.strerror}): give a file with one concept per line"
        ) from error
    if path.suffix.lower() != ".json":
        return distinct([line.strip() for line in text.splitlines() if line.strip()], str(path))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"the concepts {path} are not JSON ({error}): give a list of texts") from error
    return distinct(content, str(path))


def distinct(names: object, source: str) -> tuple[str, ...]:
    """Check a list of concepts to choose from: names, at least one, each once (see :func:`alike`).

    Raises
    ------
    FileError
        It is not; the message names the first fault.
    """
    if not isinstance(names, list | tuple) or not names:
        raise FileError(f"the concepts in {source} are {shown(names)}: give at least one name")
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        _check_name(name, f"concept {index} in {source}")
        before = first.setdefault(alike(name), index)
        if before != index:
            also = "" if names[before] == name else f" (as {names[before]!r})"
            raise FileError(f"the concept {name!r} in {source} stands at {before}{also} and {index}: give each once")
    return tuple(names)


def alike(name: str) -> str:
    """A name without the differences between lists of the same concepts: capitals, underscores for spaces."""
    return " ".join(name.replace("_", " ").casefold().split())


def _check_name(name: object, what: str) -> None:
    if not is_label(name) or name != name.strip():
        raise FileError(
            f"{what} is {shown(name)}: give a name of 1 to 100 printable characters, without space at its ends"
        )
