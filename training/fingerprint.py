"""Everything that decides the numbers of a fit, as hashes that its folder is known by."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ..runtime.decoders.files import VERSION
from ..runtime.files import hash_of_json
from .datasets.base import Data, pictures_shown
from .settings import FitModels, FitSettings


def ingredients_of(data: Data, models: FitModels, settings: FitSettings) -> dict[str, Any]:
    """Everything that decides the numbers: the test split, threads and batch size do not."""
    return {**_own_ingredients(data, settings), "models": models.hash, "preset": models.preset}


def early_key(data: Data, settings: FitSettings) -> str:
    """A hash of what decides the numbers and is known before models are opened."""
    return hash_of_json(_own_ingredients(data, settings))


def trials_of(data: Data) -> dict[str, Any]:
    """The training trials: their responses, which picture each showed, and which pictures are copies of one."""
    digest = hashlib.sha256()
    for array in (data.responses("train"), data.stimulus("train")):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    digest.update(data.hash("train").encode())
    pictures = pictures_shown(data, "train")
    # Only where it says more than the trials' numbers: a fit that was begun before goes on.
    copies = {} if np.array_equal(pictures, data.stimulus("train")) else {"pictures": pictures.tolist()}
    return {**copies, "data": digest.hexdigest()}


def _own_ingredients(data: Data, settings: FitSettings) -> dict[str, Any]:
    return {**trials_of(data), "version": VERSION, "subject": data.subject, "settings": settings.deciding()}
