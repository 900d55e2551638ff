"""Training trials averaged over the repetitions of a picture, as a data set of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Data, pictures_shown


class Averaged:
    """A data set whose train split has one trial per picture: the mean of its trials. Other splits are as they are.

    Copies of a picture under several numbers count as one, that of the first trial; trials are in the order in which
    their pictures were first shown.

    Parameters
    ----------
    data : Data
    """

    def __init__(self, data: Data) -> None:
        self._data = data
        given, stimulus = data.responses("train"), data.stimulus("train")
        _, first, which = np.unique(pictures_shown(data, "train"), return_index=True, return_inverse=True)
        order = np.argsort(first)
        self._stimulus = np.asarray(stimulus)[first[order]]
        trials = np.argsort(which, kind="stable")
        of_picture = np.split(trials, np.cumsum(np.bincount(which))[:-1])
        self._responses = np.empty((len(order), *given.shape[1:]), np.float32)
        for row, picture in enumerate(order):
            self._responses[row] = np.asarray(given[of_picture[picture]], np.float64).mean(axis=0)
        data.responses("train")  # which looks whether the data were changed meanwhile, where the data set does so

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def responses(self, split: str) -> NDArray[np.float32]:
        return self._responses if split == "train" else self._data.responses(split)

    def stimulus(self, split: str) -> NDArray[np.int64]:
        return self._stimulus if split == "train" else self._data.stimulus(split)
