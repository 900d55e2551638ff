"""The pictures of a data folder: numbered PNG files in it, or names of pictures that lie elsewhere (stimuli.json)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import FileError, InputError, shown
from ..files import read_json
from ..output import is_desktop
from .json_types import is_line
from .references import Reference, reference_from_json

STIMULI = "stimuli.json"
# The one way in which pictures of any size become squares of the folder's image_size: runtime.images.fit_square.
CROP, RESIZE = "centre", "bicubic"
Picture = Path | Reference
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def pictures_of(folder: Path, split: str, image_size: int, root: Path | None) -> tuple[Picture, ...]:
    """The pictures of one split, in the order that `stimulus` counts, after a look at each.

    Of a PNG in the folder, name, kind, size and end are checked, of a picture elsewhere that its file is there.

    Parameters
    ----------
    root
        Takes the place of the root that stimuli.json states.

    Raises
    ------
    FileError
        A picture is missing, of another kind or size, or named in another way than stated.
    """
    named = _named(folder, split, root)
    return _numbered(folder / "stimuli" / split, split, image_size) if named is None else named


def references_as_json(pictures: Mapping[str, Sequence[Reference]]) -> dict[str, Any]:
    """stimuli.json of the splits whose pictures lie elsewhere.

    Raises
    ------
    InputError
        They do not lie below one root.
    """
    roots = {os.path.abspath(picture.root) for part in pictures.values() for picture in part}
    if len(roots) > 1:
        first, second = sorted(roots)[:2]
        raise InputError(f"pictures lie below {first} and below {second}: name all of them below one root")
    splits = {split: [picture.as_json() for picture in part] for split, part in pictures.items()}
    return {"root": roots.pop(), "crop": CROP, "resize": RESIZE, **splits}


def _named(folder: Path, split: str, root: Path | None) -> tuple[Reference, ...] | None:
    """The pictures that stimuli.json names for a split; None where it names none."""
    path = folder / STIMULI
    if not path.exists():
        if root is not None and (folder / "stimuli" / split).exists():
            raise FileError(f"the pictures of {folder} lie in it, not elsewhere: leave --stimuli-root out")
        return None
    content = read_json(path, "the list of the data folder's pictures")
    if split not in content:
        return None
    for name, only in (("crop", CROP), ("resize", RESIZE)):
        if content.get(name) != only:
            raise FileError(f"{name} in {path} is {shown(content.get(name))}: give {only!r}, the only one there is")
    if not is_line(content.get("root")):
        raise FileError(f"root in {path} is {shown(content.get('root'))}: give the folder that holds the pictures")
    place = folder / content["root"] if root is None else root  # a root from the top stands for itself
    entries = content[split]
    if not isinstance(entries, list) or not entries:
        raise FileError(f"{split} in {path} is {shown(entries)}: give a list with one picture or more, or leave it out")
    if not os.path.isdir(place):  # not Path.is_dir, which raises for names that are too long
        raise FileError(f"the pictures' root {place} is not a folder: say where they lie with --stimuli-root")
    named = tuple(
        reference_from_json(entry, place, f"{split} picture {index} in {path}") for index, entry in enumerate(entries)
    )
    for first in {reference.path: reference for reference in named}.values():  # an array file is looked at once
        first.place()
    return named


def _numbered(place: Path, split: str, image_size: int) -> tuple[Path, ...]:
    """The PNG files of one split after looking at each one's name, kind, size and end."""
    try:
        names = sorted(p.name for p in place.iterdir() if not p.name.startswith(".") and not is_desktop(p.name))
    except OSError as error:
        raise FileError(f"the {split} stimuli are missing: {place} cannot be read ({error.strerror})") from error
    if not names:
        raise FileError(f"the {split} stimuli are missing: {place} is empty, put 000000.png and so on there")
    for index, name in enumerate(names):
        if name != f"{index:06d}.png":
            raise FileError(
                f"{place} holds {name} where {index:06d}.png is expected: number the pictures from 000000.png "
                "without gaps, and keep other files elsewhere"
            )
        _check_png(place / name, image_size)
    return tuple(place / name for name in names)


def _check_png(path: Path, image_size: int) -> None:
    # The first 24 and the last 8 bytes show kind, size and truncation at a thousandth of the cost of decoding.
    try:
        with open(path, "rb") as file:
            head = file.read(24)
            file.seek(-min(8, len(head)), 2)
            tail = file.read()
    except OSError as error:
        raise FileError(f"the picture {path} cannot be read ({error.strerror}): check it") from error
    if len(head) < 24 or not head.startswith(_PNG_START):
        raise FileError(f"the picture {path} is not a PNG: convert it (runtime.images.write_png does)")
    if tail != _PNG_END:
        raise FileError(f"the picture {path} is truncated: write it again")
    check_size(path, int.from_bytes(head[16:20]), int.from_bytes(head[20:24]), image_size)


def check_size(path: Path, width: int, height: int, image_size: int) -> None:
    """Refuse a picture in the folder that is not a square of the folder's size.

    Raises
    ------
    FileError
        The message names the size.
    """
    if (width, height) != (image_size, image_size):
        raise FileError(
            f"the picture {path} is {width} x {height} px, the folder's image_size is {image_size!r:.20}: "
            "make it that square (runtime.images.fit_square does)"
        )
