"""The table of the training pictures, for the controls "generator" and "nearest" of a run.

At the size of the Natural Scenes Dataset the training pictures' features are 9,000 rows of 258,000 numbers, 9 GB, which
cannot travel with a checkpoint. The table keeps of each picture which one it is, and of each feature a sketch of at
most `WIDTH` numbers that keeps inner products, 70 MB in all. A bundle has it too, so that a run without PyTorch makes
both controls. training_pictures.safetensors holds:

number (n,) int32               of each picture in the train split of the data; -1: it is of another split
pixels (n, 32) uint8            the SHA-256 of its pixels, as :func:`~minddiffuser.runtime.images.pixel_hash` has it
typical.context (15, d_text)    that of the medoid of the training contexts
mean.latent (4, h, w)           the mean over the training pictures
<feature>.position (m,) int32   the dimensions of the flattened feature that count, in the order of the sketch: of the
                                structure those that the mask trusts, and none that does not vary in training
<feature>.mean, .std (m,)       of the training targets, by which z-scores are taken
<feature>.sign (m,) int8        1 or -1
<feature>.table (n, w) float16  the sketches of the pictures' z-scores

A sketch (Charikar et al., 2002) is a sum of z-scores with random signs over groups of dimensions, here of equal size
and drawn without replacement. Between two patterns of unit length its inner product is right on average, with a
standard deviation of some 1 / sqrt(w): 0.03 for 1,024, and half of that for the mean over four features. A feature of
no more than `WIDTH` dimensions is kept as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FileError, InputError
from .files import Expected, check_arrays, read_tensors, sha256_of

FILE = "training_pictures.safetensors"
FEATURES = ("context", "latent", "structure", "semantic")
"""Those that are compared, where they are decoded."""
WIDTH = 1024
Float32 = NDArray[np.float32]
_SHORTEST = np.float32(1e-12)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sketch:
    """How one feature is compared.

    Attributes
    ----------
    position : (m,) int32
    mean, std : (m,) float32
        `std` is above 0.
    sign : (m,) int8
    width : int
    """

    position: NDArray[np.int32]
    mean: Float32
    std: Float32
    sign: NDArray[np.int8]
    width: int

    def __call__(self, feature: NDArray[Any]) -> Float32:
        """Sketches (n, w) float32 of features (n, …) in their own units."""
        rows = np.asarray(feature).reshape(len(feature), -1)[:, self.position]
        scores = (rows - self.mean) / self.std * self.sign
        starts = np.arange(self.width) * len(self.position) // self.width
        summed: Float32 = np.add.reduceat(scores, starts, axis=1, dtype=np.float32)
        return summed


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingPictures:
    """An opened table of n pictures.

    Attributes
    ----------
    number : (n,) int32
    pixels : tuple of str
        Hexadecimal SHA-256 of each.
    typical_context : (15, d_text) float32
    mean_latent : (4, h, w) float32
    sketches : feature -> Sketch
    tables : feature -> (n, w) float32
        Sketches of length 1.
    hash : str
        SHA-256 of the file.
    """

    number: NDArray[np.int32]
    pixels: tuple[str, ...]
    typical_context: Float32
    mean_latent: Float32
    sketches: Mapping[str, Sketch]
    tables: Mapping[str, Float32]
    hash: str

    def nearest(self, decoded: Any, without: Collection[str] = ()) -> tuple[NDArray[np.intp], Float32]:
        """Find the picture whose features are most similar to those decoded of each trial.

        Similar are two pictures by the cosine between the patterns of their z-scores, in each feature; the features
        count equally. Each trial's is the same whatever others come with it.

        Parameters
        ----------
        decoded
            Its attributes by the names of `FEATURES` are (n_trials, …) float32; what is None is left out.
        without
            Features that are not to count, in an ablation.

        Returns
        -------
        place : (n_trials,)
            In the table; the first of equally similar ones.
        similarity : (n_trials,) float32

        Raises
        ------
        InputError
            No feature is left.
        """
        given = {name: array for name in self.tables if (array := getattr(decoded, name)) is not None}
        given = {name: array for name, array in given.items() if name not in without}
        if not given:
            raise InputError("no decoded feature is left to find the nearest picture by: leave the control nearest out")
        n = len(next(iter(given.values())))
        places, similarities = np.empty(n, np.intp), np.empty(n, np.float32)
        for trial in range(n):
            cosines = [
                self.tables[name] @ unit(self.sketches[name](a[trial : trial + 1]))[0] for name, a in given.items()
            ]
            similarity = np.asarray(np.mean(cosines, axis=0, dtype=np.float32))
            places[trial] = similarity.argmax()
            similarities[trial] = similarity[places[trial]]
        return places, similarities


def unit(rows: Float32) -> Float32:
    """Rows (n, w) at length 1; one of zeros stays."""
    lengths = np.sqrt(np.einsum("nw,nw->n", rows, rows))[:, None]
    scaled: Float32 = rows / np.maximum(lengths, _SHORTEST)
    return scaled


def read_training_pictures(path: Path, shapes: Mapping[str, tuple[int, ...]], advice: str) -> TrainingPictures:
    """Read and check the table.

    Parameters
    ----------
    path
    shapes
        Of one trial's features.
    advice
        What to do about a table that cannot be used.

    Raises
    ------
    FileError
        It is missing or damaged, or does not fit the shapes.
    """
    arrays = read_tensors(path, "the table of training pictures")
    found = [name for name in FEATURES if f"{name}.table" in arrays and name in shapes]
    if not found:
        raise FileError(f"{path} says nothing of any feature of the training pictures: {advice}")
    n = len(arrays["number"]) if "number" in arrays else 0
    expected: dict[str, tuple[type, tuple[int, ...]]] = {
        "number": (np.int32, (-1,)),
        "pixels": (np.uint8, (n, 32)),
        "typical.context": (np.float32, shapes["context"]),
        "mean.latent": (np.float32, shapes["latent"]),
    }
    for name in found:
        expected |= _expected(arrays, name, n)
    check_arrays(arrays, path, expected, advice)
    for name in found:
        position, size, width = arrays[f"{name}.position"], prod(shapes[name]), arrays[f"{name}.table"].shape[1]
        if not (position.size and 0 <= position.min() and position.max() < size and 0 < width <= len(position)):
            raise FileError(f"{path}: {name}.position does not name dimensions of a {name} of size {size}: {advice}")
        if not (arrays[f"{name}.std"] > 0).all():
            raise FileError(f"{path}: {name}.std holds numbers that are not above 0: {advice}")
    if n == 0:
        raise FileError(f"{path} names no training picture: {advice}")
    return TrainingPictures(
        number=arrays["number"],
        pixels=tuple(bytes(row).hex() for row in arrays["pixels"]),
        typical_context=arrays["typical.context"],
        mean_latent=arrays["mean.latent"],
        sketches={name: _sketch(arrays, name) for name in found},
        tables={name: unit(arrays[f"{name}.table"].astype(np.float32)) for name in found},
        hash=sha256_of(path),
    )


def _expected(arrays: Mapping[str, NDArray[Any]], name: str, n: int) -> Expected:
    position = arrays.get(f"{name}.position")
    m = -1 if position is None else len(position)
    return {
        f"{name}.position": (np.int32, (-1,)),
        f"{name}.mean": (np.float32, (m,)),
        f"{name}.std": (np.float32, (m,)),
        f"{name}.sign": (np.int8, (m,)),
        f"{name}.table": (np.float16, (n, -1)),
    }


def _sketch(arrays: Mapping[str, NDArray[Any]], name: str) -> Sketch:
    parts = {part: arrays[f"{name}.{part}"] for part in ("position", "mean", "std", "sign")}
    return Sketch(**parts, width=arrays[f"{name}.table"].shape[1])
