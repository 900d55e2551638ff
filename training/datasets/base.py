"""What training needs of a data set, and the register of those that it can read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import ResponseLayout
from ...runtime.errors import check_choice
from ...runtime.fields import SHA256
from ...runtime.images import pixel_hash

# name -> (module, function that opens a path, with a `stimuli_root` that is None or where the pictures lie). A new data
# set is one file in this package and one line here.
DATASETS: dict[str, tuple[str, str]] = {"folder": ("...runtime.data.folder", "open_data")}


class Data(Protocol):
    """Responses of one subject to pictures; `split` is "train" or "test"."""

    @property
    def subject(self) -> str: ...
    @property
    def layout(self) -> ResponseLayout:
        """What one trial's responses are."""
        ...

    @property
    def signal_folder(self) -> Path:
        """Where the files lie that the layout's signal chain names, by their names; asked for where it names any."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the data come from, as JSON; copied into checkpoints."""
        ...

    def responses(self, split: str) -> NDArray[np.float32]:
        """(n_trials, *response_shape) float32."""
        ...

    def stimulus(self, split: str) -> NDArray[np.int64]:
        """(n_trials,) int64: which picture each trial showed."""
        ...

    def n_stimuli(self, split: str) -> int:
        """How many pictures the split has."""
        ...

    def images(self, split: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Pictures `start` to `stop`, (n, H, W, 3) uint8."""
        ...

    def captions(self, split: str) -> Sequence[Sequence[str]]:
        """Captions per stimulus; empty when there are none."""
        ...

    def concepts(self, split: str) -> Sequence[str]:
        """What each stimulus is of, one name each; empty when there are none."""
        ...

    def hash(self, split: str) -> str:
        """SHA-256 over stimuli, captions and concepts: the key under which their features may be kept."""
        ...


def pictures_shown(data: Data, split: str) -> NDArray[np.int64]:
    """Which picture each trial showed, (n_trials,), by content: the number of the first picture that is the same.

    A data set that stores a picture once per trial has copies under several numbers. Sets without ``picture_ids``
    (split -> one id per picture, the same for copies) are taken at their numbers.
    """
    stimulus = data.stimulus(split)
    if not hasattr(data, "picture_ids"):
        return stimulus
    first: dict[str, int] = {}
    same = [first.setdefault(name, number) for number, name in enumerate(data.picture_ids(split))]
    return np.array(same, np.int64)[stimulus]


def picture_digests(data: Data, split: str, numbers: Iterable[int]) -> list[str]:
    """The hexadecimal SHA-256 by which a run knows each of these pictures: that of its pixels.

    See :func:`~minddiffuser.runtime.images.pixel_hash`. Of a data set that names its pictures otherwise, it is that of
    the name: such pictures are found by their numbers alone.
    """
    if not hasattr(data, "picture_ids"):
        return [pixel_hash(data.images(split, number, number + 1)[0]) for number in map(int, numbers)]
    ids = data.picture_ids(split)
    named = [str(ids[number]) for number in numbers]
    return [name if SHA256.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest() for name in named]


def open_dataset(name: str, path: Path | str, *, stimuli_root: Path | None = None) -> Data:
    """Open a data set of a registered kind.

    Parameters
    ----------
    name : a key of DATASETS.
    path : where it is.
    stimuli_root : where its pictures lie, if elsewhere than it states.

    Raises
    ------
    InputError
        The kind is unknown.
    FileError
        The files are missing or damaged.
    """
    check_choice("data set", name, DATASETS)
    module, attribute = DATASETS[name]
    opened: Any = getattr(import_module(module, __package__), attribute)(Path(path), stimuli_root=stimuli_root)
    data: Data = opened
    return data
