"""What the decoders are fitted to: context, latent, structure and semantic feature of every stimulus of a split.

Kept on disk under a key of everything that decides them, so that nothing stale is ever read; written a batch at a
time, so that memory does not grow with the number of stimuli and a run that was killed goes on where it was. Rows are
hashed as they are written and compared when they are read. Who computes holds a lock beside the folder; others wait.

Versions of libraries are no part of the key: they change the last digits, and features take hours. They are kept,
compared, and told.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...runtime.environment import versions
from ...runtime.errors import FileError, InputError, check_choice
from ...runtime.files import cannot_write, check_format, read_json, write_json
from ...runtime.images import fit_square, to_float
from ...runtime.locks import beside, locked
from ...runtime.models.models import Models
from ...runtime.models.structure import PRESETS
from .. import libraries
from .captions import Cut, cut_captions, encoded_as
from .checks import check_finite, check_varies

VERSION = 2
"""Of the files, and of how features are computed from models and stimuli: raise it when either changes."""
DESCRIPTION = "features.json"

Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]
Say = Callable[[str], None]

_HASHED_AT_ONCE = 1 << 24


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
    `latent` (n, 4, h, w); `structure` (n, 6, n_tokens, d_vision); `semantic` (n, d_vision). `libraries` are the
    versions that they were computed with.
    """

    context: Float32 | None
    latent: Float32
    structure: Float32
    semantic: Float32
    folder: Path
    key: str
    libraries: dict[str, str]


def extract_features(
    data: Stimuli,
    split: str,
    models: Models,
    *,
    cache_dir: Path,
    batch_size: int = 32,
    progress: Progress | None = None,
    say: Say | None = None,
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
        Several processes may share it: one computes, the others wait for it.
    batch_size
        Stimuli per forward pass; memory grows with it and with nothing else.
    progress
        Called with (stimuli done, stimuli in all) at the start and after each batch.
    say
        Receives single lines: that another process is waited for, that captions were cut, that kept features were
        computed with other versions of the libraries.

    Raises
    ------
    InputError
        Features that nothing can be fitted to: NaN, infinite, or the same for every picture.
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

    def fill(target: _Target) -> None:
        _fill(target, data, split, models, batch_size, progress)

    found = _open(folder, key, shapes)
    if found is None:
        with locked(beside(folder), folder, wait=True, on_wait=say):
            found = _open(folder, key, shapes)  # another process may have made them just now
            if found is None:
                found = _make(folder, key, ingredients, shapes, fill)
            elif progress is not None:
                progress(total, total)
    elif progress is not None:
        progress(total, total)
    if say is not None:
        for line in _notes(found):
            say(line)
    features, _ = found
    return features


def _make(
    folder: Path,
    key: str,
    ingredients: dict[str, Any],
    shapes: dict[str, tuple[int, ...]],
    fill: Callable[[_Target], None],
) -> _Opened:
    """Let `fill` compute what is missing, in a folder beside, and give the whole its name."""
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        fill(_prepare(partial, key, ingredients, shapes))
        _publish(partial, folder)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise cannot_write(folder.parent, error) from error
    found = _open(folder, key, shapes)
    if found is None:
        raise FileError(f"the features in {folder} are not what was just written: check that drive, and run again")
    return found


def _notes(found: _Opened) -> list[str]:
    features, cut = found
    differing = libraries.differences(features.libraries, versions(libraries.FEATURES))
    notes = [cut.line()]
    if differing:
        notes.append(
            f"the features kept in {features.folder} were computed with {differing} and are used as they are: their "
            "last digits may differ from what would be computed now; delete that folder to compute them again"
        )
    return [note for note in notes if note]


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
    """The files being written: `done` of `total` rows are whole, and `hashes` are those of their bytes."""

    folder: Path
    shapes: dict[str, tuple[int, ...]]
    content: dict[str, Any]
    hashes: dict[str, Any]

    @property
    def done(self) -> int:
        return int(self.content["done"])

    @property
    def total(self) -> int:
        return _n_rows(self.shapes)

    def write(self, rows: dict[str, Float32], cut: Cut) -> None:
        # Through plain files, not the mapping: a full disk is then an error to report and not a bus error, and
        # written pages do not count as this process's memory.
        done, count = self.done, len(next(iter(rows.values())))
        for name, values in rows.items():
            path, data = self.folder / f"{name}.npy", np.ascontiguousarray(values, np.float32).tobytes()
            with open(path, "r+b") as file:
                file.seek(_start(path, self.shapes[name]) + done * _row_bytes(self.shapes[name]))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # before `done` says so
            self.hashes[name].update(data)
        self.content |= {
            "done": done + count,
            "sha256": {name: digest.hexdigest() for name, digest in self.hashes.items()},
            "captions": (Cut.read(self.content["captions"]) + cut).describe(),
        }
        write_json(self.folder / DESCRIPTION, self.content)


def _n_rows(shapes: dict[str, tuple[int, ...]]) -> int:
    return next(iter(shapes.values()))[0]


def _row_bytes(shape: tuple[int, ...]) -> int:
    return 4 * int(np.prod(shape[1:]))


def _start(path: Path, shape: tuple[int, ...]) -> int:
    """Where the rows begin in a file of full length."""
    return path.stat().st_size - _row_bytes(shape) * shape[0]


def _prepare(folder: Path, key: str, ingredients: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> _Target:
    """Go on with what an earlier run left, or make empty files of full length."""
    now = versions(libraries.FEATURES)
    found = _whole_rows(folder, key, shapes)
    if found is not None:
        content, hashes = found
        content["libraries"] = libraries.merged(content["libraries"], now) if content["done"] else now
        return _Target(folder, shapes, content, hashes)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, shape in shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)
    content = {"format": "minddiffuser-features", "version": VERSION, "key": key, "done": 0}
    content |= {"libraries": now, "captions": Cut().describe(), "ingredients": ingredients, "shapes": shapes}
    write_json(folder / DESCRIPTION, content)
    return _Target(folder, shapes, content, {name: hashlib.sha256() for name in shapes})


def _whole_rows(
    folder: Path, key: str, shapes: dict[str, tuple[int, ...]]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The description and the hashes so far; None when nothing is there, it is damaged, or of another key."""
    try:
        content = read_json(folder / DESCRIPTION, "the features' description")
        check_format(content, folder / DESCRIPTION, "features", VERSION)
        Cut.read(content["captions"])
        done, before = content["done"], content["libraries"]
        good = type(done) is int and 0 <= done <= _n_rows(shapes) and isinstance(before, dict)
        if content["key"] != key or not good or not all(isinstance(value, str) for value in before.values()):
            return None
        hashes = {}
        for name, shape in shapes.items():
            _map(folder, name, shape)
            hashes[name] = _hash_rows(folder / f"{name}.npy", shape, done)
            if done > 0 and hashes[name].hexdigest() != content["sha256"][name]:
                return None
    except (FileError, OSError, KeyError, TypeError, ValueError):
        return None
    return content, hashes


def _hash_rows(path: Path, shape: tuple[int, ...], n_rows: int) -> Any:
    digest, left = hashlib.sha256(), n_rows * _row_bytes(shape)
    with open(path, "rb") as file:
        file.seek(_start(path, shape))
        while left > 0:
            data = file.read(min(left, _HASHED_AT_ONCE))
            if not data:
                raise ValueError(path)
            digest.update(data)
            left -= len(data)
    return digest


def _map(folder: Path, name: str, shape: tuple[int, ...]) -> Float32:
    array: Float32 = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(name)
    return array


_Opened = tuple[Features, Cut]


def _open(folder: Path, key: str, shapes: dict[str, tuple[int, ...]]) -> _Opened | None:
    """Finished features whose bytes are those that were written."""
    found = _whole_rows(folder, key, shapes)
    if found is None or found[0]["done"] != _n_rows(shapes):
        return None
    content, _ = found
    arrays = {name: _map(folder, name, shape) for name, shape in shapes.items()}
    arrays.setdefault("context", None)  # type: ignore[arg-type]
    return Features(**arrays, folder=folder, key=key, libraries=content["libraries"]), Cut.read(content["captions"])


def _publish(partial: Path, folder: Path) -> None:
    """Give the whole folder its name; what lies there was found damaged, or was written by another run just now."""
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _fill(
    target: _Target, data: Stimuli, split: str, models: Models, batch_size: int, progress: Progress | None
) -> None:
    captions, layers = data.captions(split), tuple(f"block {number + 1}" for number in PRESETS[models.preset])
    first: _First | None = None
    if progress is not None:
        progress(target.done, target.total)
    while target.done < target.total:
        stop = min(target.done + batch_size, target.total)
        images = _sized(data.images(split, target.done, stop), models.image_size)
        texts = captions[target.done : stop]
        rows = _features(images, texts, models)
        check_finite(rows, target.done, layers)
        said = encoded_as(texts, models)
        first = first or _First(images[0], said[0] if said else {}, {k: row[:1] for k, row in rows.items()})
        first.compare(images, said, rows, layers)
        target.write(rows, cut_captions(texts, models))
        if progress is not None:
            progress(target.done, target.total)


@dataclass(frozen=True)
class _First:
    """The first stimulus of a run: what others have to differ from."""

    image: NDArray[np.uint8]
    said: Mapping[tuple[int, ...], Fraction]
    rows: dict[str, Float32]

    def compare(
        self,
        images: NDArray[np.uint8],
        said: Sequence[Mapping[tuple[int, ...], Fraction]],
        rows: dict[str, Float32],
        layers: tuple[str, ...],
    ) -> None:
        """Refuse a batch of other pictures with the same features; a batch with a few that differ is good."""
        differs = {
            "picture": np.array([False, *((image != self.image).any() for image in images)]),
            "context": np.array([False, *(tokens != self.said for tokens in said)]),
        }
        check_varies(
            {name: np.concatenate([self.rows[name], values]) for name, values in rows.items()}, differs, layers
        )


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
