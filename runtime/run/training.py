"""The training pictures that a run's controls show: looked up in a data folder, and checked by their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..backends.base import Decoder
from ..data.pictures import Picture, pictures_of
from ..data.references import read_picture
from ..data.schema import SPLITS, as_version_2, check_description
from ..data.stimuli import stimulus_ids
from ..errors import FileError, InputError, MindDiffuserError
from ..files import read_json
from ..images import ImageU8, fit_square, pixel_hash
from ..training_pictures import TrainingPictures
from .controls import OF_TRAINING, controls_text
from .job import Job
from .reconstruct import Training

_DESCRIPTION = "data.json"


class _Source:
    """The pictures of a table, in a data folder.

    Parameters
    ----------
    folder : Path
    stimuli_root : Path, optional
        Of a folder that only names its pictures.
    table : TrainingPictures
    size : int
        Side of what is handed out, px.

    Raises
    ------
    FileError
        It is no data folder, or has no such pictures.
    """

    def __init__(self, folder: Path, stimuli_root: Path | None, table: TrainingPictures, size: int) -> None:
        self._folder, self._table, self._size = folder, table, size
        path = folder / _DESCRIPTION
        description = as_version_2(read_json(path, "the data folder's description"), path)
        check_description(description, str(path))
        self._splits: dict[str, tuple[Picture, ...]] = {}
        self._image_size, self._stimuli_root = description["image_size"], stimuli_root
        self._by_pixels: dict[str, Picture] | None = None
        self._picture(0)  # that they are there at all is known before anything is computed

    def __call__(self, places: Sequence[int]) -> NDArray[np.uint8]:
        return np.stack([fit_square(self._picture(place), self._size) for place in places])

    def _split(self, split: str) -> tuple[Picture, ...]:
        if split not in self._splits:
            self._splits[split] = pictures_of(self._folder, split, self._image_size, self._stimuli_root)
        return self._splits[split]

    def _picture(self, place: int) -> ImageU8:
        """Decode a picture, by its number where that is still its own, else by its pixels."""
        number, wanted = int(self._table.number[place]), self._table.pixels[place]
        train = self._split("train")
        if 0 <= number < len(train):
            image = _read(train[number])
            if image is not None and pixel_hash(image) == wanted:
                return image
        if self._by_pixels is None:
            every = [picture for split in SPLITS for picture in self._there(split)]
            self._by_pixels = dict(zip(stimulus_ids(every), every, strict=True))
        if wanted not in self._by_pixels:
            raise FileError(
                f"the training picture {number} (SHA-256 {wanted[:12]}…) is not in {self._folder}: give the data "
                "folder that was fitted, with --train-data"
            )
        return read_picture(self._by_pixels[wanted])

    def _there(self, split: str) -> tuple[Picture, ...]:
        try:
            return self._split(split)
        except FileError:
            return ()


def _read(picture: Picture) -> ImageU8 | None:
    try:
        return read_picture(picture)
    except FileError:
        return None


def with_training(job: Job, decoder: Decoder) -> tuple[Job, Training | None, dict[str, str]]:
    """The job with those controls that there is all for, what they take, and why others are left out.

    Raises
    ------
    FileError, InputError
        The table of training pictures is damaged, or --train-data is not the folder of these pictures.
    """
    asked = [name for name in job.settings.control_names if name in OF_TRAINING]
    if job.train_data is not None and "nearest" not in asked:
        raise InputError(
            f"--train-data {job.train_data} is for the control nearest, which is not asked for: give --controls "
            "nearest, or leave it out"
        )
    if not asked:
        return job, None, {}
    table = decoder.training_pictures
    if table is None:
        reason = f"{decoder.folder} holds no table of the training pictures: fit it again, into another folder"
        return _without(job, asked), None, dict.fromkeys(asked, reason)
    if "nearest" not in asked:
        return job, Training(table=table), {}
    try:
        return job, Training(table=table, read=_source(job, table, decoder.image_size)), {}
    except MindDiffuserError as error:
        if job.train_data is not None:
            raise
        left = Training(table=table) if "generator" in asked else None
        return _without(job, ["nearest"]), left, {"nearest": str(error)}


def _source(job: Job, table: TrainingPictures, size: int) -> _Source:
    folder = job.responses if job.train_data is None else job.train_data
    if not (folder / _DESCRIPTION).is_file():
        raise FileError(f"{folder} is no data folder: give that of the training pictures with --train-data")
    return _Source(folder, job.stimuli_root, table, size)


def _without(job: Job, names: Sequence[str]) -> Job:
    left = [name for name in job.settings.control_names if name not in names]
    return replace(job, settings=replace(job.settings, controls=controls_text(left)))
