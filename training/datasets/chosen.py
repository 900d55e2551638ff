"""Some trials of a data set as one of their own: its train and test split may come from either of the old ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.files import hash_of_json
from .base import Data
from .changed import Changed

SPLITS = ("train", "test")
# Split -> numbers of its trials, in the order in which they are taken.
Trials = Mapping[str, NDArray[np.integer[Any]]]


@dataclass(frozen=True, eq=False)
class _Part:
    """One new split: the trials, and which old pictures (split, number) its stimuli are."""

    responses: NDArray[np.float32]
    stimulus: NDArray[np.int64]
    pictures: tuple[tuple[str, int], ...]


class Chosen(Changed):
    """Trials of `data` as a train and a test split, each with the pictures that its trials showed and no others.

    Parameters
    ----------
    data : Data
    train, test : split of `data` to trial numbers (n,)
    """

    def __init__(self, data: Data, train: Trials, test: Trials) -> None:
        super().__init__(data)
        self._parts = {"train": _part(data, train), "test": _part(data, test)}

    def responses(self, split: str) -> NDArray[np.float32]:
        return self._parts[split].responses

    def stimulus(self, split: str) -> NDArray[np.int64]:
        return self._parts[split].stimulus

    def n_stimuli(self, split: str) -> int:
        return len(self._parts[split].pictures)

    def images(self, split: str, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        wanted = self._parts[split].pictures[start:stop]
        return np.concatenate([self._data.images(of, first, last) for of, first, last in _runs(wanted)])

    def captions(self, split: str) -> list[Sequence[str]]:
        return self._of_pictures(split, self._data.captions)

    def concepts(self, split: str) -> tuple[str, ...]:
        return tuple(self._of_pictures(split, self._data.concepts))

    def picture_ids(self, split: str) -> tuple[str, ...]:
        """As those of the data set; of one that has none, a picture's old place."""
        pictures = self._parts[split].pictures
        if not hasattr(self._data, "picture_ids"):
            return tuple(f"{of}/{number}" for of, number in pictures)
        ids = {of: self._data.picture_ids(of) for of in {of for of, _ in pictures}}
        return tuple(ids[of][number] for of, number in pictures)

    def old_numbers(self, split: str) -> tuple[int, ...]:
        """Of each picture its number in the same split of the data set, -1 for one of another split."""
        return tuple(number if of == split else -1 for of, number in self._parts[split].pictures)

    def hash(self, split: str) -> str:
        """That of the old split where all of its pictures are there, so that features are kept once."""
        pictures = self._parts[split].pictures
        if pictures == tuple((split, number) for number in range(self._data.n_stimuli(split))):
            return self._data.hash(split)
        hashes = {of: self._data.hash(of) for of in sorted({of for of, _ in pictures})}
        return hash_of_json({"splits": hashes, "pictures": pictures})

    def _of_pictures(self, split: str, of_split: Any) -> list[Any]:
        """What each picture has of its own; nothing where one of them has none."""
        pictures = self._parts[split].pictures
        found = {of: of_split(of) for of in {of for of, _ in pictures}}
        return [found[of][number] for of, number in pictures] if all(map(len, found.values())) else []


def _part(data: Data, trials: Trials) -> _Part:
    taken = {split: np.asarray(trials[split], np.intp) for split in SPLITS if len(trials.get(split, ()))}
    responses = np.concatenate([np.asarray(data.responses(split)[rows], np.float32) for split, rows in taken.items()])
    shown = [(split, int(number)) for split, rows in taken.items() for number in data.stimulus(split)[rows]]
    pictures = tuple(sorted(set(shown), key=lambda one: (SPLITS.index(one[0]), one[1])))
    place = {picture: number for number, picture in enumerate(pictures)}
    return _Part(responses, np.array([place[picture] for picture in shown], np.int64), pictures)


def _runs(pictures: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    """Pictures as (split, first, last + 1) of those that lie side by side."""
    start = 0
    for end in range(1, len(pictures) + 1):
        if end == len(pictures) or pictures[end] != (pictures[end - 1][0], pictures[end - 1][1] + 1):
            yield pictures[start][0], pictures[start][1], pictures[end - 1][1] + 1
            start = end
