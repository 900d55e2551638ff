"""Test trials as a network's training reads them, alone or behind some of the training trials."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError
from ..datasets.base import pictures_shown
from ..normalise import TargetColumns, ZScored
from ..settings import FitSettings
from .base import Array, Given, network_features


@dataclass(frozen=True, eq=False)
class TestedTrials:
    """The test split as it lies in the data.

    Attributes
    ----------
    responses : (n_trials, *response_shape)
    stimulus, pictures : (n_trials,) int64
    features : name to (n_stimuli, n_dimensions)
    """

    __test__ = False  # no test of pytest's

    responses: Array
    stimulus: NDArray[np.int64]
    pictures: NDArray[np.int64]
    features: Mapping[str, Array]

    def normalised(self, training: ZScored) -> ZScored:
        """Z-scored as the training responses are."""
        return ZScored(self.responses, training.normaliser)

    def targets(self, training: Mapping[str, TargetColumns]) -> dict[str, TargetColumns]:
        """The same targets, z-scored by the same statistics."""
        return {
            name: TargetColumns(self.features[name], self.stimulus, columns.positions, (columns.mean, columns.std))
            for name, columns in training.items()
        }

    def hash(self) -> str:
        """SHA-256 over responses and what they showed; the features follow from the pictures."""
        digest = hashlib.sha256()
        for array in (self.responses, self.stimulus):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def tested_trials(given: Given) -> TestedTrials:
    """The test split of the data, with the features that networks are fitted to."""
    data, found = given.data, given.features(given.data, "test")
    flat = {name: found[name].reshape(len(found[name]), -1) for name in network_features(given.settings)}
    responses = np.asarray(data.responses("test"), np.float32)
    return TestedTrials(responses, data.stimulus("test"), pictures_shown(data, "test"), flat)


def check_networks(name: str, data: Any, settings: FitSettings, *, why: str) -> None:
    """Refuse settings without a network, and test pictures without a feature that a network is fitted to.

    Raises
    ------
    InputError
        In one sentence.
    """
    networks = network_features(settings)
    if not networks:
        raise InputError(f"the leak {name} needs {why}, and no feature's decoder is one: give --decoder mlp, say")
    if "context" in networks and len(data.captions("test")) == 0:
        raise InputError(
            f"the leak {name} needs captions of the test pictures where a network decodes the context: add them to "
            "captions.json, or give --decoder context=ridge"
        )


class Stacked:
    """Some trials of one source, then some of another: responses, or targets by their columns.

    Parameters
    ----------
    parts : (source, trials (n,))
    """

    def __init__(self, parts: Sequence[tuple[Any, NDArray[np.integer[Any]]]]) -> None:
        self._parts = list(parts)
        self._n = [len(trials) for _, trials in parts]
        first = parts[0][0]
        self.shape: Any = (sum(self._n), *first.shape[1:])

    def __len__(self) -> int:
        n_rows: int = self.shape[0]
        return n_rows

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Responses by numbers, a slice or a mask; an int gives one trial."""
        if isinstance(rows, int | np.integer):
            found: NDArray[Any] = self[[int(rows)]][0]
            return found
        return self._taken(np.arange(len(self))[rows], lambda source, trials: source[trials])

    def rows(self, trials: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Targets of some trials (n,), (n, n_targets)."""
        return self._taken(np.asarray(trials), lambda source, wanted: source.rows(wanted))

    def columns(self, start: int, stop: int) -> NDArray[Any]:
        """Targets start..stop-1 of all trials."""
        return np.concatenate([source.columns(start, stop)[trials] for source, trials in self._parts])

    def _taken(self, rows: NDArray[np.integer[Any]], take: Any) -> NDArray[Any]:
        start, made = 0, np.empty((len(rows), *self.shape[1:]), np.float64)
        for (source, trials), n in zip(self._parts, self._n, strict=True):
            here = (rows >= start) & (rows < start + n)
            if here.any():
                made[here] = take(source, trials[rows[here] - start])
            start += n
        return made
