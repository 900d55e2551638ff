"""A cache of features that were computed by another preprocessing, whose file does not say by which."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...runtime.files import hash_of_json
from ..datasets.base import Data
from ..datasets.changed import Changed
from ..leaky import Leaky
from ..settings import FitSettings
from .base import Form, Given

SOURCE = "EEG_Image_decode, issue 11: a file of features is taken whatever model and preprocessing it is of"
WHAT = (
    "decoders are fitted to, and scored by, features of the pictures at a quarter of their side, as a cache would hold "
    "that is older than the preprocessing. What is decoded is then not what the networks draw from"
)
FACTOR = 4


def check(data: Data, settings: FitSettings) -> None:
    """It applies to everything."""


def forms(given: Given) -> tuple[Form, Form]:
    stale = cast(Data, Thumbnails(given.data))
    return Form(data=stale, leak=Leaky(name="stale-features")), Form(data=given.data)


class Thumbnails(Changed):
    """The same data, with pictures of which every square of `FACTOR` pixels has one colour."""

    def images(self, split: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        return coarse(self._data.images(split, start, stop))

    def hash(self, split: str) -> str:
        return hash_of_json({"of": self._data.hash(split), "coarse": FACTOR})


def coarse(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures (n, H, W, 3) with the mean of each square in its place; what is left at the edges stays as it is."""
    n, height, width, _ = images.shape
    rows, columns = height // FACTOR, width // FACTOR
    made = images.copy()
    inner = images[:, : rows * FACTOR, : columns * FACTOR].reshape(n, rows, FACTOR, columns, FACTOR, 3)
    means = np.rint(inner.mean(axis=(2, 4))).astype(np.uint8)
    made[:, : rows * FACTOR, : columns * FACTOR] = means.repeat(FACTOR, axis=1).repeat(FACTOR, axis=2)
    return made
