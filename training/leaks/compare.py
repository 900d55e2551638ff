"""How much a leak adds: the trials of both forms decoded, scored, and compared picture by picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.concepts import alike
from ...runtime.decoders.checkpoint import Checkpoint
from ...runtime.errors import InputError
from ...runtime.metrics.compare import differences, mean
from ..datasets.base import Data, pictures_shown
from .base import SEED, Array

CONCEPT = "concept"
# What is held of a trial are whole features.
_TRIALS_AT_ONCE = 32

Float64 = NDArray[np.float64]
Scores = dict[str, Float64]


class Compared:
    """Two checkpoints on the same test trials.

    Parameters
    ----------
    clean, leaky : Checkpoint
        Scores are of the dimensions that both decode and that vary in training, in units of the clean checkpoint's
        training means and deviations.
    """

    def __init__(self, clean: Checkpoint, leaky: Checkpoint) -> None:
        self.clean, self.leaky = clean, leaky
        self.positions: dict[str, NDArray[np.integer[Any]]] = {}
        for name, decoder in clean.decoders.items():
            placement = decoder.placements[name]
            both = np.intersect1d(placement.position, leaky.decoders[name].placements[name].position)
            varying = both[placement.std[both] > 0]
            if len(varying) > 1:  # of fewer there is no correlation
                self.positions[name] = varying

    def z_scored(self, name: str, values: Array) -> Float64:
        """A feature (n, …) in its scored dimensions, (n, n_positions), by the clean training statistics."""
        placement, positions = self.clean.decoders[name].placements[name], self.positions[name]
        flat = np.asarray(values).reshape(len(values), -1)[:, positions].astype(np.float64)
        scores: Float64 = (flat - placement.mean[positions]) / placement.std[positions]
        return scores

    def scores(self, checkpoint: Checkpoint, data: Data, truth: Mapping[str, Array], places: Array | None) -> Scores:
        """Each test trial's scores: of each feature the correlation over dimensions, and whether the concept is right.

        Parameters
        ----------
        checkpoint
            One of the two.
        data
            Of its form.
        truth
            Feature to (n_stimuli, …), of the test stimuli.
        places
            (n_concepts, n_positions) z-scored, where :func:`concept_names` lie by the semantic feature; None where
            the checkpoint has a route of its own, or nothing to name concepts by.
        """
        names = [name for name in self.positions if name in truth]
        responses, stimulus = data.responses("test"), data.stimulus("test")
        found: dict[str, list[Float64]] = {}
        for start in range(0, len(stimulus), _TRIALS_AT_ONCE):
            shown = stimulus[start : start + _TRIALS_AT_ONCE]
            rows = np.asarray(responses[start : start + _TRIALS_AT_ONCE], np.float32)
            decoded = {name: self.z_scored(name, values) for name, values in _decoded(checkpoint, rows, names).items()}
            for name, values in decoded.items():
                found.setdefault(name, []).append(row_correlations(values, self.z_scored(name, truth[name][shown])))
            right = self._right(checkpoint, data, rows, decoded, places, shown)
            if right is not None:
                found.setdefault(CONCEPT, []).append(right)
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def _right(
        self,
        checkpoint: Checkpoint,
        data: Data,
        rows: NDArray[np.float32],
        decoded: Mapping[str, Float64],
        places: Array | None,
        shown: NDArray[np.int64],
    ) -> Float64 | None:
        """Whether the named concept is the true one, (n,); None where nothing names one."""
        if len(data.concepts("test")) == 0:
            return None
        true = [alike(data.concepts("test")[number]) for number in shown]
        if checkpoint.route is not None and checkpoint.candidates is not None:
            nearest = checkpoint.similarities(rows).argmax(axis=1)
            named = [alike(checkpoint.candidates.names[number]) for number in nearest]
        elif places is not None and "semantic" in decoded:
            names = concept_names(data)
            likeness = np.stack([row_correlations(decoded["semantic"], np.tile(one, (len(rows), 1))) for one in places])
            named = [names[number] for number in likeness.argmax(axis=0)]
        else:
            return None
        return np.array([one == other for one, other in zip(true, named, strict=True)], np.float64)


def concept_names(data: Data) -> list[str]:
    """The concepts that the training pictures have, each once, in order."""
    return sorted({alike(name) for name in data.concepts("train")})


def concept_places(compared: Compared, data: Data, semantic: Array) -> Float64 | None:
    """Where each of `concept_names` lies, (n, n_positions): the mean over its training pictures, z-scored.

    Parameters
    ----------
    semantic : (n_stimuli, d)
        Of the training stimuli. None is given back where there is no decoder of it, or no concept.
    """
    names = concept_names(data)
    if "semantic" not in compared.positions or not names:
        return None
    values, of = compared.z_scored("semantic", semantic), [alike(name) for name in data.concepts("train")]
    return np.stack([values[[one == name for one in of]].mean(axis=0) for name in names])


def table(leaky: Scores, clean: Scores, stimulus_ids: list[str]) -> dict[str, dict[str, Any]]:
    """For each score the means over pictures of both forms, leaky minus clean, and its paired 95 % interval."""
    changes = differences(clean, leaky, np.random.default_rng(SEED), stimulus_ids=stimulus_ids)
    return {
        name: {
            "leaky": mean(leaky[name], stimulus_ids),
            "clean": mean(clean[name], stimulus_ids),
            "difference": change["difference"],
            "ci95": change["ci95"],
        }
        for name, change in changes.items()
    }


def tested_pictures(leaky: Data, clean: Data) -> list[str]:
    """Which picture each test trial showed, as texts.

    Raises
    ------
    InputError
        The two forms have other test trials.
    """
    shown = [pictures_shown(data, "test") for data in (leaky, clean)]
    if not np.array_equal(shown[0], shown[1]):
        raise InputError("the leaky and the clean form have other test trials: a leak may change their responses only")
    return [str(number) for number in shown[0]]


def row_correlations(first: Float64, second: Float64) -> Float64:
    """Pearson's correlation of each row of one (n, d) with that of the other, (n,); 0 where a row does not vary."""
    a, b = (values - values.mean(axis=1, keepdims=True) for values in (first, second))
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    found: Float64 = np.divide((a * b).sum(axis=1), scale, out=np.zeros(len(a)), where=scale > 0)
    return found


def _decoded(checkpoint: Checkpoint, rows: NDArray[np.float32], names: list[str]) -> dict[str, Array]:
    """Features as their own decoders give them, of the embedding too."""
    scores, found = checkpoint.training.scores(rows), dict[str, Array]()
    for decoder in {id(checkpoint.decoders[name]): checkpoint.decoders[name] for name in names}.values():
        found |= decoder.predict(scores, names)
    return {name: checkpoint.decoders[name].placements[name].place(found[name]) for name in names}
