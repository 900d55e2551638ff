"""Where pictures that are measured come from: files, or whatever else can be read one by one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..files import sha256_of
from ..images import read_image, to_float

Float32 = NDArray[np.float32]


class Source(Protocol):
    """One picture, read when it is needed; hashable, so that it is hashed and read no more often than that."""

    def digest(self) -> str:
        """Hexadecimal SHA-256 of what is stored: equal ones are equal pictures."""
        ...

    def image(self) -> Float32:
        """(3, H, W) float32 in [0, 1]."""
        ...


@dataclass(frozen=True)
class PictureFile:
    """A picture in a file of its own."""

    path: Path

    def digest(self) -> str:
        return sha256_of(self.path)

    def image(self) -> Float32:
        found: Float32 = to_float(read_image(self.path)[None])[0]
        return found


Pair = tuple[Source, Source]  # stimulus, picture
