"""Pictures as the THINGS data sets keep them: JPEG files named by concept and exemplar, "rabbit_01b.jpg"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ....runtime.images import ImageU8
from ..shown import Shown

_LETTERS = "bnsuvwxyz"
_PER_LETTER = 99
_UNKNOWN = "thing"


def named(shown: Shown) -> list[tuple[str, str]]:
    """Concept and file name of each picture, in the order of the pictures.

    Without concepts all are of the concept "thing". Names say the order of exemplars, as in THINGS: sorted, they are in
    the order of the pictures.
    """
    concepts = [_file_name(name) for name in shown.concepts] or [_UNKNOWN] * len(shown.images)
    counts: dict[str, int] = {}
    found = []
    for concept in concepts:
        letter, number = divmod(counts.setdefault(concept, 0), _PER_LETTER)
        counts[concept] += 1
        found.append((concept, f"{concept}_{number + 1:02d}{_LETTERS[letter]}.jpg"))
    return found


def _file_name(concept: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", concept.lower()).strip("_") or _UNKNOWN


def write_jpegs(images: Sequence[ImageU8], paths: Sequence[Path]) -> None:
    """Write pictures at the highest quality, without subsampling of colours: a few levels off at most."""
    from PIL import Image

    for image, path in zip(images, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, "JPEG", quality=100, subsampling=0)
