"""What a simulated subject is shown: pictures as squares, their captions and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from ...runtime.images import fit_square, read_image


class Squares(Sequence[NDArray[np.uint8]]):
    """Pictures as squares of one size, made when asked for.

    Parameters
    ----------
    sources : arrays (H, W, 3) uint8, or paths of picture files of any size.
    size : side in px.
    """

    def __init__(self, sources: Sequence[Path | NDArray[np.uint8]], size: int) -> None:
        self._sources, self._size = sources, size

    def __len__(self) -> int:
        return len(self._sources)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> Squares: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | Squares:
        if isinstance(index, slice):
            return Squares(self._sources[index], self._size)
        source = self._sources[index]
        return fit_square(read_image(source) if isinstance(source, Path) else source, self._size)


class Shown:
    """The pictures of one split.

    Parameters
    ----------
    images : the pictures.
    captions : of each picture; empty where there are none.
    names : of their files, if any.
    labels : (n, 3) int64, the tiny world's concept, colour and background of each picture; None where not known.
    """

    def __init__(
        self,
        images: Squares,
        captions: Sequence[Sequence[str]],
        names: Sequence[str] = (),
        labels: NDArray[np.int64] | None = None,
    ) -> None:
        self.images, self.captions, self.names, self.labels = images, captions, names, labels

    @property
    def concepts(self) -> tuple[str, ...]:
        """What each picture shows, one word each such as "rabbit"; empty where it is not known."""
        from ..tinyworld.scenes import CONCEPTS

        return () if self.labels is None else tuple(CONCEPTS[int(row[0])] for row in self.labels)


def rendered(seed: np.random.SeedSequence, n_pictures: int, size: int, *, combinations: str) -> Shown:
    """Draw tiny-world pictures as squares of `size` px, with one caption each."""
    from ..tinyworld.draw import draw
    from ..tinyworld.scenes import scenes

    many = list(scenes(int(seed.generate_state(1)[0]), n_pictures, combinations=combinations))
    labels = np.array([scene.labels for scene in many], np.int64)
    return Shown(Squares([draw(scene) for scene in many], size), [[scene.caption] for scene in many], labels=labels)
