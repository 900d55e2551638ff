"""What the decoders are fitted to: context, latent, structure and semantic feature of every stimulus of a split.

Kept on disk under a key of everything that decides them, so that nothing stale is ever read; written a batch at a
time, so that memory does not grow with the number of stimuli and a run that was killed goes on where it was. A batch's
rows are hashed as they are written and compared when they are read; those that differ are computed again. The process
that computes holds a lock beside the folder; others wait.

Versions of libraries are not part of the key, since they change only the last digits and features take hours. They are
recorded, compared, and any difference is reported.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import prod
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...runtime.environment import versions
from ...runtime.errors import FileError, InputError, check_choice
from ...runtime.files import check_format, hash_of_json, read_json, write_json, writing
from ...runtime.images import fit_square, to_float
from ...runtime.journal import Journal, Record
from ...runtime.locks import beside, locked
from ...runtime.models.models import Models
from ...runtime.models.structure import PRESETS
from ...runtime.progress import unheard
from .. import libraries
from ..datasets.base import Data
from .captions import Cut, cut_captions, encoded_as
from .checks import check_finite, check_varies

VERSION = 3
"""Of the files, and of how features are computed from models and stimuli: raise it when either changes."""
DESCRIPTION = "features.json"

Float32 = NDArray[np.float32]
Progress = Callable[[int, int], None]
Say = Callable[[str], None]

_HASHED_AT_ONCE = 1 << 24


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """Features of one split's stimuli, read-only float32 arrays mapped from `folder` (not in memory).

    `context` (n, 15, d_text), the mean over a stimulus's captions, None when the split has no captions;
    `latent` (n, 4, h, w); `structure` (n, 6, n_tokens, d_vision); `semantic` (n, d_vision); `embedding` (n, embed_dim),
    CLIP's own, of any length, None where it was not asked for. `libraries` are the versions that they were computed
    with.
    """

    context: Float32 | None
    latent: Float32
    structure: Float32
    semantic: Float32
    folder: Path
    key: str
    libraries: dict[str, str]
    embedding: Float32 | None = None


def extract_features(
    data: Data,
    split: str,
    models: Models,
    *,
    cache_dir: Path,
    batch_size: int = 32,
    embedding: bool = False,
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
    embedding
        Whether the CLIP image embedding is wanted too.
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
    ingredients = _ingredients(data, split, models) | ({"embedding": True} if embedding else {})
    key = hash_of_json(ingredients)
    folder = Path(cache_dir) / key[:32]
    total = data.n_stimuli(split)
    shapes = _shapes(data.captions(split), models, total)
    shapes |= {"embedding": (total, models.embedding_size)} if embedding else {}
    rows = _Rows(folder, key, shapes)
    if not rows.done.all():
        with locked(beside(folder), folder, wait=True, on_wait=say):
            rows = _Rows(folder, key, shapes)  # another process may have made them just now
            if not rows.done.all():
                with writing(folder.parent):
                    rows.begin(ingredients)
                    _fill(rows, data, split, models, batch_size, progress, embedding=embedding)
                progress = None  # it has received the end
        rows = _Rows(folder, key, shapes)
        if not rows.done.all():
            raise FileError(f"the features in {folder} are not what was just written: check that drive, and run again")
    if progress is not None:
        progress(total, total)
    features = rows.features()
    if say is not None:
        for line in _notes(features, rows.cut):
            say(line)
    return features


def _notes(features: Features, cut: Cut) -> list[str]:
    differing = libraries.differences(features.libraries, versions(libraries.FEATURES))
    notes = [cut.line()]
    if differing:
        notes.append(
            f"the features kept in {features.folder} were computed with {differing} and are used as they are: their "
            "last digits may differ from what would be computed now; delete that folder to compute them again"
        )
    return [note for note in notes if note]


def _ingredients(data: Data, split: str, models: Models) -> dict[str, Any]:
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


class _Rows:
    """The arrays of one key in `folder`, and which of their rows are whole: `done`, (n_stimuli,) bool.

    One record of the journal for each batch, with the hashes of its rows.
    """

    def __init__(self, folder: Path, key: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._folder, self._key, self._shapes = folder, key, shapes
        self.done = np.zeros(next(iter(shapes.values()))[0], bool)
        self._journal, self._records = Journal(folder, key), list[Record]()
        if self._is_begun():
            for record in self._journal.records():
                if self._is_whole(record):
                    self._take(record)

    def _is_begun(self) -> bool:
        """Whether the description and the arrays of full length are there, whatever the rows hold."""
        try:
            content = read_json(self._folder / DESCRIPTION, "the features' description")
            check_format(content, self._folder / DESCRIPTION, "features", VERSION)
            for name in self._shapes:
                self._map(name)
        except (FileError, OSError, ValueError):
            return False
        return content.get("key") == self._key

    def _is_whole(self, record: Record) -> bool:
        start, stop = record.content["rows"]
        if self.done[start:stop].any():
            return False
        hashes = {name: self._hash(name, start, stop) for name in self._shapes}
        return bool(record.content["sha256"] == hashes)

    def _take(self, record: Record) -> None:
        self.done[slice(*record.content["rows"])] = True
        self._records.append(record)

    def begin(self, ingredients: Mapping[str, Any]) -> None:
        """Make empty arrays of full length, where there is nothing to go on with."""
        if self._is_begun():
            return
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        for name, shape in self._shapes.items():
            np.lib.format.open_memmap(self._folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape)
        content = {"format": "minddiffuser-features", "version": VERSION, "key": self._key}
        write_json(self._folder / DESCRIPTION, {**content, "ingredients": ingredients, "shapes": self._shapes})

    def write(self, start: int, rows: Mapping[str, Float32], cut: Cut) -> None:
        """Write the rows from `start` on, then their record."""
        # Through plain files, not the mapping: a full disk is then an error to report and not a bus error, and
        # written pages do not count as this process's memory.
        hashes, stop = {}, start + len(next(iter(rows.values())))
        for name, values in rows.items():
            data = np.ascontiguousarray(values, np.float32).tobytes()
            with open(self._folder / f"{name}.npy", "r+b") as file:
                file.seek(self._place(name, start))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # before the record says so
            hashes[name] = hashlib.sha256(data).hexdigest()
        said = {"captions": cut.describe(), "libraries": versions(libraries.FEATURES)}
        self._take(self._journal.finish(f"{start:08d}", [], rows=[start, stop], sha256=hashes, **said))

    def features(self) -> Features:
        """What is whole, mapped."""
        arrays = {name: self._map(name) for name in self._shapes}
        arrays.setdefault("context", None)  # type: ignore[arg-type]
        return Features(**arrays, folder=self._folder, key=self._key, libraries=libraries.of_all(self._records))

    @property
    def cut(self) -> Cut:
        """The captions that did not fit."""
        cuts = [Cut(**record.content["captions"]) for record in self._records]
        return reduce(add, cuts)

    def _map(self, name: str) -> Float32:
        array: Float32 = np.load(self._folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if array.shape != self._shapes[name] or array.dtype != np.float32:
            raise ValueError(name)
        return array

    def _place(self, name: str, row: int) -> int:
        """Where a row begins in a file of full length."""
        n_rows, *shape = self._shapes[name]
        return (self._folder / f"{name}.npy").stat().st_size - 4 * prod(shape) * (n_rows - row)

    def _hash(self, name: str, start: int, stop: int) -> str:
        digest, place, end = hashlib.sha256(), self._place(name, start), self._place(name, stop)
        with open(self._folder / f"{name}.npy", "rb") as file:
            file.seek(place)
            while data := file.read(min(end - place, _HASHED_AT_ONCE)):
                digest.update(data)
                place += len(data)
        return digest.hexdigest()


def _fill(
    rows: _Rows,
    data: Data,
    split: str,
    models: Models,
    batch_size: int,
    progress: Progress | None,
    *,
    embedding: bool,
) -> None:
    captions, layers = data.captions(split), tuple(f"block {number + 1}" for number in PRESETS[models.preset])
    first: _First | None = None
    report, total = progress or unheard, len(rows.done)
    report(int(rows.done.sum()), total)
    while not rows.done.all():
        start = int(rows.done.argmin())
        after = np.flatnonzero(rows.done[start:])
        stop = min(start + batch_size, start + int(after[0]) if len(after) else total)
        images, texts = _sized(data.images(split, start, stop), models.image_size), captions[start:stop]
        found = _features(images, texts, models, embedding=embedding)
        check_finite(found, start, layers)
        said = encoded_as(texts, models)
        first = first or _First(images[0], said[0] if said else {}, {k: row[:1] for k, row in found.items()})
        first.compare(images, said, found, layers)
        rows.write(start, found, cut_captions(texts, models))
        report(int(rows.done.sum()), total)


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
def _features(
    images: NDArray[np.uint8], captions: Sequence[Sequence[str]], models: Models, *, embedding: bool
) -> dict[str, Float32]:
    """The features of one batch: images (n, H, W, 3) uint8, captions per image (empty: no context)."""
    pixels = torch.from_numpy(to_float(images)).to(models.device)
    found: dict[str, Any] = {"latent": models.encode_latent(pixels)}
    if embedding:
        found |= dict(zip(("structure", "semantic", "embedding"), models.features(pixels), strict=True))
    else:
        found |= dict(zip(("structure", "semantic"), models.structure(pixels, semantic=True), strict=True))
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
