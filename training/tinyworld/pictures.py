"""The rendered training set, drawn once into one file and read through a memory map."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .draw import draw_all
from .scenes import IMAGE_SIZE, scenes

TRAIN_SEED, TEST_SEED, JUDGE_SEED = 1_000, 2_000, 3_000
_CHUNK = 1_000


class Pictures:
    """`images` (n, 64, 64, 3) uint8 and `labels` (n, 3) int64 (concept, colour, background), in memory maps."""

    def __init__(self, folder: Path) -> None:
        self.images: NDArray[np.uint8] = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        self.labels: NDArray[np.int64] = np.load(folder / "labels.npy", allow_pickle=False)

    def __len__(self) -> int:
        return len(self.labels)


def _chunk(seed: int, n_pictures: int, combinations: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    many = list(scenes(seed, n_pictures, combinations=combinations))
    return draw_all(many), np.array([scene.labels for scene in many])


def open_pictures(
    folder: Path,
    *,
    n_pictures: int,
    seed: int = TRAIN_SEED,
    combinations: str = "seen",
    progress: Callable[[int, int], None] | None = None,
) -> Pictures:
    """Open the rendered set in `folder`, drawing it first if it is not there.

    The files appear under their names only when they are whole; the name of the folder's subfolder
    holds seed, number and split, so another request never reads this one's pictures.
    """
    place = folder / f"pictures-{combinations}-{seed}-{n_pictures}"
    if not (place / "labels.npy").exists():
        place.mkdir(parents=True, exist_ok=True)
        sizes = [min(_CHUNK, n_pictures - start) for start in range(0, n_pictures, _CHUNK)]
        draft = place / f"images.{os.getpid()}.npy"
        shape = (n_pictures, IMAGE_SIZE, IMAGE_SIZE, 3)
        images = np.lib.format.open_memmap(draft, mode="w+", dtype=np.uint8, shape=shape)
        labels = np.empty((n_pictures, 3), np.int64)
        done = 0
        with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
            seeds = [seed + 7919 * index for index in range(len(sizes))]
            for chunk_images, chunk_labels in pool.map(_chunk, seeds, sizes, [combinations] * len(sizes)):
                images[done : done + len(chunk_labels)] = chunk_images
                labels[done : done + len(chunk_labels)] = chunk_labels
                done += len(chunk_labels)
                if progress is not None:
                    progress(done, n_pictures)
        images.flush()
        del images
        draft.replace(place / "images.npy")
        np.save(place / "labels.draft.npy", labels)
        (place / "labels.draft.npy").replace(place / "labels.npy")
    return Pictures(place)
