"""Renderings in layers, for training where things are: the picture, its background alone, and what the object covers.

Drawn once into one file and read through a memory map, as :mod:`.pictures` are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .draw import draw, draw_background, draw_coverage
from .pictures import write_array
from .scenes import IMAGE_SIZE, Scene, sample_scene

LOCATOR_SEED = 4_000
# Wider than what the world's pictures show, because a reconstruction may be of another size and place.
SIZES, MARGIN, TILT_DEG = (0.16, 0.50), 0.75, 35.0
_CHUNK = 500


class Layers:
    """`layers` (n, 64, 64, 7) uint8 in a memory map: picture and background (RGB each), coverage; `tilt_deg` (n,)."""

    def __init__(self, folder: Path) -> None:
        self.layers: NDArray[np.uint8] = np.load(folder / "layers.npy", mmap_mode="r", allow_pickle=False)
        self.tilt_deg: NDArray[np.float32] = np.load(folder / "tilt.npy", allow_pickle=False)

    def __len__(self) -> int:
        return len(self.tilt_deg)


def wider(rng: np.random.Generator) -> Scene:
    """A scene with words that occur in training, and a size, place and tilt from wider ranges."""
    size = float(rng.uniform(*SIZES))
    low, high = MARGIN * size, 1 - MARGIN * size
    x, y = (float(rng.uniform(low, high)) for _ in range(2))
    return replace(sample_scene(rng), x=x, y=y, size=size, tilt_deg=float(rng.uniform(-TILT_DEG, TILT_DEG)))


def _chunk(seed: int, n_pictures: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    many = [wider(rng) for _ in range(n_pictures)]
    drawn = [
        np.concatenate([draw(scene), draw_background(scene), draw_coverage(scene)[..., None]], axis=2) for scene in many
    ]
    return np.stack(drawn), np.array([scene.tilt_deg for scene in many], np.float32)


def open_layers(
    folder: Path, *, n_pictures: int, seed: int = LOCATOR_SEED, progress: Callable[[int, int], None] | None = None
) -> Layers:
    """Open the set in `folder`, drawing it first if it is not there; files appear under their names when whole."""
    place = folder / f"layers-{seed}-{n_pictures}"
    if not (place / "tilt.npy").exists():
        sizes = [min(_CHUNK, n_pictures - start) for start in range(0, n_pictures, _CHUNK)]
        seeds = [seed + 7919 * index for index in range(len(sizes))]
        tilts: list[NDArray[np.float32]] = []

        def drawn() -> Iterator[NDArray[np.uint8]]:
            done = 0
            with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
                for some, their_tilts in pool.map(_chunk, seeds, sizes):
                    yield some
                    tilts.append(their_tilts)
                    done += len(their_tilts)
                    if progress is not None:
                        progress(done, n_pictures)

        write_array(place / "layers.npy", (n_pictures, IMAGE_SIZE, IMAGE_SIZE, 7), np.dtype(np.uint8), drawn())
        write_array(place / "tilt.npy", (n_pictures,), np.dtype(np.float32), tilts)
    return Layers(place)
