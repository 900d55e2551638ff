"""What an opened decoder is, and the registry of its kinds: one file and one line here add another."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError, check_choice
from ..files import Array, Expected, check_arrays, read_tensors
from . import KINDS

Float32 = NDArray[np.float32]
ADVICE = "fit the checkpoint again"
# What a decoder's file holds of each of its features, each name after "<feature>.", whatever its kind.
PLACEMENT = ("position", "mean", "std")


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a decoder's predictions go in a feature, and what brings them into the feature's units.

    Attributes
    ----------
    shape
        Of the feature of one trial; `size` is its product.
    position : (n_predicted,) int32
        The dimensions of the flattened feature that are predicted, each once.
    mean, std : (size,) float32
        Of the training targets. Predictions are z-scores by these; what is not predicted is the mean.
    """

    shape: tuple[int, ...]
    position: NDArray[np.int32]
    mean: Float32
    std: Float32

    def place(self, predicted: Float32) -> Float32:
        """Z-scores (n_trials, n_predicted) to the feature (n_trials, *shape)."""
        out = np.tile(self.mean, (len(predicted), 1))
        out[:, self.position] += self.std[self.position] * predicted
        return out.reshape(len(predicted), *self.shape)


class Decoder(Protocol):
    """Opened from a checkpoint; gives one feature, or several from one trunk.

    A trial's predictions must be the same, bit by bit, whatever other trials come with it. A matrix product may sum in
    another order for another number of rows: predict trial by trial.
    """

    @property
    def placements(self) -> Mapping[str, Placement]:
        """Of every feature that it gives."""
        ...

    def prepare(self) -> None:
        """Make everything that :meth:`predict` needs, so that what is wrong is said before the first trial.

        Raises
        ------
        FileError
            The arrays do not fit the description.
        """
        ...

    def predict(self, scores: Float32, features: Collection[str]) -> dict[str, Float32]:
        """Some of its features from z-scored responses (n_trials, *response_shape).

        Returns
        -------
        feature -> (n_trials, n_predicted) float32, z-scores by the feature's own placement
        """
        ...


@dataclass(frozen=True)
class Stored:
    """One decoder as a checkpoint holds it.

    Attributes
    ----------
    path
        Its file of arrays.
    description
        Its entry in checkpoint.json, of which "kind" and "features" are checked.
    response_shape
        Of one trial.
    shapes
        Of each of its features.
    """

    path: Path
    description: Mapping[str, Any]
    response_shape: tuple[int, ...]
    shapes: Mapping[str, tuple[int, ...]]

    def refuse(self, what: str) -> FileError:
        """The error for arrays or settings that do not fit."""
        return FileError(f"{self.path}: {what}: {ADVICE}")

    def placement(self, arrays: Mapping[str, Array], feature: str) -> Placement:
        """Check "<feature>.position", "<feature>.mean" and "<feature>.std" against the feature's shape.

        Raises
        ------
        FileError
            They are of another dtype or shape, hold NaN, or point out of the feature or twice to one dimension.
        """
        shape = self.shapes[feature]
        size, names = math.prod(shape), [f"{feature}.{name}" for name in PLACEMENT]
        wanted = ((np.int32, (-1,)), (np.float32, (size,)), (np.float32, (size,)))
        check_arrays(arrays, self.path, dict(zip(names, wanted, strict=True)), ADVICE)
        position, mean, std = (arrays[name] for name in names)
        if not inside(position, size) or len(np.unique(position)) != len(position):
            raise self.refuse(f"{names[0]} does not name dimensions of a {feature} of size {size}, each once")
        return Placement(shape, position, mean, std)


def open_decoder(stored: Stored) -> Decoder:
    """Open a decoder of a registered kind.

    Raises
    ------
    FileError
        Its file is damaged or does not fit its description.
    """
    opened: Decoder = import_module(KINDS[stored.description["kind"]], __package__).open_decoder(stored)
    return opened


def check_fitted(kind: str, arrays: Mapping[str, Array], feature: str, n_targets: int) -> None:
    """Refuse arrays of a fitter that a decoder of this kind could not be opened from, before they become a file.

    Raises
    ------
    InputError
        The kind is unknown, arrays are missing or of another shape or dtype, or hold NaN or infinite values.
    """
    check_choice("kind of decoder", kind, KINDS)
    import_module(KINDS[kind], __package__).check_fitted(arrays, feature, n_targets)


def read_arrays(path: Path, what: str, expected: Expected) -> dict[str, Array]:
    """Read a file of a checkpoint and check names, dtypes and shapes; there may be further arrays.

    Raises
    ------
    FileError
        It is missing or damaged, or an array is missing, of another dtype or shape, or holds NaN or infinite values.
    """
    arrays = read_tensors(path, what)
    check_arrays(arrays, path, expected, ADVICE)
    return arrays


def inside(values: Array, size: int) -> bool:
    """Whether there are values, all of them from 0 to size - 1."""
    return values.size > 0 and int(values.min()) >= 0 and int(values.max()) < size
