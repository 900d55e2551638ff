"""What the decoders are fitted to: context, latent, structure and semantic feature of every stimulus of a split.

Kept on disk under a key of everything that decides them, so that nothing stale is ever read; written a batch at a
time, so that memory does not grow with the number of stimuli and a run that was killed goes on where it was.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...runtime.errors import FileError, InputError, check_choice
from ...runtime.files import read_json, write_json
from ...runtime.images import fit_square, to_float
from ...runtime.models.models import Models

VERSION = 1
"""Of the files, and of how features are computed from models and stimuli: raise it when either changes."""
DESCRIPTION = "features.json"

Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]


class Stimuli(Protocol):
    """What is needed of a data folder."""

    def n_stimuli(self, split: str) -> int: ...
    def images(self, split: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]: ...
    def captions(self, split: str) -> Sequence[Sequence[str]]: ...
    def hash(self, split: str) -> str: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Features of one split's stimuli, read-only float32 arrays mapped from `folder` (not in memory).

    `context` (n, 15, d_text), the mean over a stimulus's captions, None when the split has no captions;
    `latent` (n, 4, h, w); `structure` (n, 6, n_tokens, d_vision); `semantic` (n, d_vision).
    """

    context: Float32 | None
    latent: Float32
    structure: Float32
    semantic: Float32
    folder: Path
    key: str


def extract_features(
    data: Stimuli,
    split: str,
    models: Models,
    *,
    cache_dir: Path,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Features:
    """Compute the features of every stimulus of a split, or open those that are already there.

    Parameters
    ----------
    data
        A data folder. Pictures of another size than the models' are resized and cropped as `fit_square` does.
    split
        "train" or "test".
    models
        From `load_models`.
    cache_dir
        Features lie in `cache_dir`/<key>; deleting the folder is always safe. One stimulus takes 1 MB with SD 1.4.
    batch_size
        Stimuli per forward pass; memory grows with it and with nothing else.
    progress
        Called with (stimuli done, stimuli in all) at the start and after each batch.

    Raises
    ------
    FileError
        The cache cannot be written (disk full, permissions), or a stimulus cannot be read.
    """
    check_choice("split", split, ("train", "test"))
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected at least 1: pass --batch-size 32")
    ingredients = _ingredients(data, split, models)
    key = hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
    folder = Path(cache_dir) / key[:32]
    total = data.n_stimuli(split)
    shapes = _shapes(data.captions(split), models, total)
    found = _open(folder, key, shapes)
    if found is None:
        partial = folder.with_name(f"{folder.name}.partial")
        try:
            done = _prepare(partial, key, ingredients, shapes)
            _fill(_Target(partial, shapes, done, total), data, split, models, batch_size, progress)
            _publish(partial, folder)
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(_cannot_write(Path(cache_dir), error)) from error
        found = _open(folder, key, shapes)
    elif progress is not None:
        progress(total, total)
    if found is None:
        raise FileError(f"the features in {folder} do not fit what was just written: delete that folder and run again")
    return found


def _ingredients(data: Stimuli, split: str, models: Models) -> dict[str, Any]:
    """Everything that decides the numbers; the device and the batch size do not."""
    return {
        "version": VERSION,
        "models": models.hash,
        "preset": models.preset,
        "preprocessing": models.preprocessing.describe(),
        "image_size": models.image_size,
        "dtype": str(models.dtype).removeprefix("torch."),
        "split": split,
        "data": data.hash(split),
    }


def _shapes(captions: Sequence[Sequence[str]], models: Models, total: int) -> dict[str, tuple[int, ...]]:
    """Array name -> shape. A split without any captions has no context; a gap in the captions is refused."""
    structure = models.structure_shape
    shapes: dict[str, tuple[int, ...]] = {
        "latent": (total, *models.latent_shape),
        "structure": (total, *structure),
        "semantic": (total, structure[-1]),
    }
    if not captions:
        return shapes
    empty = [index for index, texts in enumerate(captions) if not texts]
    if len(captions) != total or empty:
        what = (
            f"stimulus {empty[0]} has none" if empty else f"there are {total} stimuli and {len(captions)} lists of them"
        )
        raise InputError(f"captions are incomplete ({what}): give at least one per stimulus, or none at all")
    return {"context": (total, *models.context_shape), **shapes}


@dataclass
class _Target:
    """The files being written: `done` of `total` rows are whole."""

    folder: Path
    shapes: dict[str, tuple[int, ...]]
    done: int
    total: int

    def write(self, rows: dict[str, Float32]) -> None:
        # Through plain files, not the mapping: a full disk is then an error to report and not a bus error, and
        # written pages do not count as this process's memory.
        count = len(next(iter(rows.values())))
        for name, values in rows.items():
            path = self.folder / f"{name}.npy"
            start = path.stat().st_size - _row_bytes(self.shapes[name]) * self.total
            with open(path, "r+b") as file:
                file.seek(start + self.done * _row_bytes(self.shapes[name]))
                file.write(np.ascontiguousarray(values, np.float32).tobytes())
                file.flush()
                os.fsync(file.fileno())  # before `done` says so
        self.done += count
        description = read_json(self.folder / DESCRIPTION, "the features' description")
        write_json(self.folder / DESCRIPTION, description | {"done": self.done})


def _row_bytes(shape: tuple[int, ...]) -> int:
    return 4 * int(np.prod(shape[1:]))


def _prepare(folder: Path, key: str, ingredients: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> int:
    """Go on with what an earlier run left, or make empty files of full length; returns the rows that are whole."""
    done = _rows_done(folder, key, shapes)
    if done is not None:
        return done
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, shape in shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)
    content = {"format": "minddiffuser-features", "version": VERSION, "key": key, "done": 0}
    write_json(folder / DESCRIPTION, content | {"ingredients": ingredients, "shapes": shapes})
    return 0


def _rows_done(folder: Path, key: str, shapes: dict[str, tuple[int, ...]]) -> int | None:
    """How many rows of `folder` are whole; None when it is not there, damaged, or of another key."""
    try:
        content = read_json(folder / DESCRIPTION, "the features' description")
        if content.get("key") != key or content.get("version") != VERSION:
            return None
        for name, shape in shapes.items():
            _map(folder, name, shape)
        done = int(content["done"])
    except (FileError, OSError, KeyError, TypeError, ValueError):
        return None
    total = next(iter(shapes.values()))[0]
    return done if 0 <= done <= total else None


def _map(folder: Path, name: str, shape: tuple[int, ...]) -> Float32:
    array: Float32 = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(name)
    return array


def _open(folder: Path, key: str, shapes: dict[str, tuple[int, ...]]) -> Features | None:
    if _rows_done(folder, key, shapes) != next(iter(shapes.values()))[0]:
        return None
    arrays = {name: _map(folder, name, shape) for name, shape in shapes.items()}
    arrays.setdefault("context", None)  # type: ignore[arg-type]
    return Features(**arrays, folder=folder, key=key)


def _publish(partial: Path, folder: Path) -> None:
    """Give the whole folder its name; what lies there was found damaged, or was written by another run just now."""
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _fill(
    target: _Target, data: Stimuli, split: str, models: Models, batch_size: int, progress: Progress | None
) -> None:
    captions = data.captions(split)
    if progress is not None:
        progress(target.done, target.total)
    while target.done < target.total:
        stop = min(target.done + batch_size, target.total)
        images = _sized(data.images(split, target.done, stop), models.image_size)
        target.write(_features(images, captions[target.done : stop], models))
        if progress is not None:
            progress(target.done, target.total)


def _sized(images: Iterable[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    return np.stack([image if image.shape[:2] == (size, size) else fit_square(image, size) for image in images])


@torch.no_grad()
def _features(images: NDArray[np.uint8], captions: Sequence[Sequence[str]], models: Models) -> dict[str, Float32]:
    """The features of one batch: images (n, H, W, 3) uint8, captions per image (empty: no context)."""
    pixels = torch.from_numpy(to_float(images)).to(models.device)
    structure, semantic = models.structure(pixels, semantic=True)
    found = {"latent": models.encode_latent(pixels), "structure": structure, "semantic": semantic}
    rows = {name: value.float().cpu().numpy() for name, value in found.items() if value is not None}
    if captions:
        rows["context"] = _mean_context(captions, models)
    return rows


def _mean_context(captions: Sequence[Sequence[str]], models: Models) -> Float32:
    """The mean over an image's captions, as in the paper; each different caption is encoded once."""
    texts = list(dict.fromkeys(text for image in captions for text in image))
    row = {text: index for index, text in enumerate(texts)}
    encoded = models.encode_text(texts).double().cpu().numpy()
    means = [encoded[[row[text] for text in image]].mean(axis=0) for image in captions]
    return np.stack(means).astype(np.float32)


def _cannot_write(folder: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full while writing features to {folder}: free some space and run the same command again"
    return f"features cannot be written to {folder} ({error.strerror or error}): choose another folder"
