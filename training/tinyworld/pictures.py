"""The rendered training set, drawn once into one file and read through a memory map."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.files import replacing
from .draw import draw_all
from .scenes import IMAGE_SIZE, scenes

TRAIN_SEED, TEST_SEED, CLASSIFIER_SEED = 1_000, 2_000, 3_000
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
        sizes = [min(_CHUNK, n_pictures - start) for start in range(0, n_pictures, _CHUNK)]
        seeds = [seed + 7919 * index for index in range(len(sizes))]
        labels: list[NDArray[np.int64]] = []

        def draw() -> Iterator[NDArray[np.uint8]]:
            done = 0
            with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
                for some_images, some_labels in pool.map(_chunk, seeds, sizes, [combinations] * len(sizes)):
                    yield some_images
                    labels.append(some_labels)
                    done += len(some_labels)
                    if progress is not None:
                        progress(done, n_pictures)

        write_array(place / "images.npy", (n_pictures, IMAGE_SIZE, IMAGE_SIZE, 3), np.dtype(np.uint8), draw())
        write_array(place / "labels.npy", (n_pictures, 3), np.dtype(np.int64), labels)
    return Pictures(place)


def write_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], parts: Iterable[NDArray[Any]]) -> None:
    """Write the rows in `parts`, one after another, as one .npy file that appears under its name when whole.

    Plain writes under a name of this process's own: on a full disk a memory map would kill the process without a
    word, and processes that train beside one another may write the same file.
    """
    with replacing(path) as draft, open(draft, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).tobytes())
