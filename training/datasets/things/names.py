"""The names that THINGS gives to concepts and pictures, and what they say in words."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

NO_CAPTIONS = "captions: THINGS has none, so each is 'a picture of a <concept>'"
_NUMBERED = re.compile(r"\d{5}_(.+)")
_EXEMPLAR = re.compile(r"(.+)_[0-9]{2}[a-z]")


def of_folder(folder: str) -> str:
    """THINGS' own name of a concept, from its folder: "aircraft_carrier" of "00010_aircraft_carrier"."""
    match = _NUMBERED.fullmatch(folder)
    return folder if match is None else match[1]


def of_file(path: str) -> str | None:
    """The concept of a picture file: "images_test_meg/coat_rack_13s.jpg" is of "coat_rack"; None for other names."""
    match = _EXEMPLAR.fullmatch(PurePosixPath(path).stem)
    return None if match is None else match[1]


def in_words(concept: str) -> str:
    """A concept in words: "coat rack"; the numbers of homonyms are left out ("bat1" and "bat2" are a "bat")."""
    return re.sub(r"\d+$", "", concept).replace("_", " ").strip() or concept


def caption(concept: str) -> str:
    """What a picture shows, in the only words that there are: THINGS has no captions."""
    return f"a picture of a {in_words(concept)}"
