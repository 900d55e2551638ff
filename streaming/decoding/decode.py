"""One accepted epoch to features: averaged where that is wanted, checked, decoded, and compared with the candidates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.backends.base import Backend
from ...runtime.decoders.belonging import Decoded
from ...runtime.decoders.screen import screen_trial
from ...runtime.errors import InputError
from .average import Averages
from .control import Control, Score
from .drift import Drift
from .null import Null

Float32 = NDArray[np.float32]
TOP = 5


class Undecodable(Exception):
    """Raised for an epoch that has no features: `state` is "rejected" or "refused", the text is the reason."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """How a session decodes.

    Attributes
    ----------
    session
        Its id, of which a trial's id begins.
    average
        Whether the mean over an event's epochs so far is decoded, instead of each epoch.
    semantic
        Whether stage 2 wants the target of eq. 6.
    seed
        Of what is drawn: the scrambled copies here, the start noise of the pictures.
    concepts
        Which candidate a marker is of, for the control; see :func:`.concept_table.read_concepts_of`.
    """

    session: str
    average: bool = False
    semantic: bool = True
    seed: int = 42
    concepts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedEpoch:
    """What was decoded from one epoch, or from the mean over its event's epochs.

    Attributes
    ----------
    ordinal, text
        Of the marker.
    trial_id
        "<session>/<ordinal>", and of a mean "<session>/mean/<text>": its noise stays while it grows.
    n_averaged
        Of how many epochs it is the mean, 1 of a single one.
    response : (n_channels, n_times) float32
        What the decoder was given.
    features
        Of this one trial: arrays (1, …).
    similarity : (n_candidates,) float32, or None where the context is decoded directly
    nearest
        The candidates' names from the nearest one on, at most `TOP`, with their similarity.
    chance
        Of a right answer among the first 1 and the first `TOP`.
    margin
        By how much the nearest is nearer than the next.
    confidence
        See :mod:`.null`; None as long as there is nothing to compare with.
    warnings
        Sentences for the user.
    """

    ordinal: int
    text: str
    trial_id: str
    n_averaged: int
    response: Float32
    features: Decoded
    similarity: Float32 | None = None
    nearest: tuple[tuple[str, float], ...] = ()
    chance: tuple[float, float] | None = None
    margin: float | None = None
    confidence: float | None = None
    warnings: tuple[str, ...] = ()

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the response and of each feature, to compare a replay with."""
        arrays = {"response": self.response} | arrays_of(self.features)
        return {
            name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in arrays.items()
        }


class EpochDecoder:
    """Decodes the accepted epochs of a session in their order; nothing here waits or asks for the time.

    Parameters
    ----------
    backend
        Started.
    settings
    """

    def __init__(self, backend: Backend[Any], settings: DecodeSettings) -> None:
        self._backend, self._settings = backend, settings
        decoder = backend.decoder
        self._training = decoder.training
        self._names = () if decoder.candidates is None else decoder.candidates.names
        self._averages = Averages() if settings.average else None
        self._drift = Drift(self._training, averaging=settings.average)
        self._null = Null(self._training, settings.seed)
        self._control = Control(self._names, settings.concepts) if self._names else None

    def decode(self, ordinal: int, text: str, epoch: Float32) -> DecodedEpoch:
        """Decode an epoch (n_channels, n_times) as the chain gives it.

        Raises
        ------
        Undecodable
            It is an artefact, or not on the scale of training (rejected); or the decoder failed (refused).
        """
        try:
            screened, warnings = screen_trial(epoch, self._training)
        except InputError as error:
            raise Undecodable("rejected", str(error)) from None
        trial_id, n_averaged = f"{self._settings.session}/{ordinal}", 1
        if self._averages is not None:
            screened, n_averaged = self._averages.add(text, screened)
            trial_id = f"{self._settings.session}/mean/{text}"
        features, similarity = self._decoded(screened)
        return DecodedEpoch(
            ordinal=ordinal,
            text=text,
            trial_id=trial_id,
            n_averaged=n_averaged,
            response=screened,
            features=features,
            warnings=warnings,
            **self._compared(similarity),
        )

    def after(self, decoded: DecodedEpoch) -> str | None:
        """Do what an epoch's result need not wait for; a sentence where the signal has left training, or come back."""
        if self._control is not None and decoded.similarity is not None:
            self._control.add(decoded.text, [self._names[number] for number in _by_nearness(decoded.similarity)])
            copies = self._null.copies(decoded.response, decoded.trial_id)
            self._null.add(self._backend.decoder.similarity(copies, screened=True))
        return self._drift.add(decoded.response)

    def scores(self) -> tuple[Score, ...]:
        """Of the running control; empty where there are no candidates."""
        return () if self._control is None else self._control.scores()

    @property
    def outside(self) -> tuple[str, ...]:
        """The channels that have left the range of training."""
        return self._drift.outside

    def _decoded(self, response: Float32) -> tuple[Decoded, Float32 | None]:
        decoder = self._backend.decoder
        try:
            features = self._backend.decode(response[None], semantic=self._settings.semantic)
            similarity = decoder.similarity(response[None], screened=True)[0] if self._names else None
        except Exception as error:  # whatever it is, the session goes on with the next epoch
            raise Undecodable("refused", f"the decoder failed ({type(error).__name__}: {error})") from error
        arrays = arrays_of(features) | ({} if similarity is None else {"similarity": similarity})
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad:
            raise Undecodable("refused", f"what was decoded holds NaN or infinite values ({', '.join(bad)})")
        return features, similarity

    def _compared(self, similarity: Float32 | None) -> dict[str, Any]:
        if similarity is None:
            return {}
        names, order = self._names, _by_nearness(similarity)
        near = [float(similarity[number]) for number in order[:2]]
        return {
            "similarity": similarity,
            "nearest": tuple((names[number], float(similarity[number])) for number in order[:TOP]),
            "chance": (1 / len(names), min(1.0, TOP / len(names))),
            "margin": near[0] - near[1] if len(near) > 1 else None,
            "confidence": self._null.confidence(near[0]),
        }


def arrays_of(features: Decoded) -> dict[str, Float32]:
    """The features that there are, by name."""
    found = {field.name: getattr(features, field.name) for field in fields(features)}
    return {name: array for name, array in found.items() if array is not None}


def _by_nearness(similarity: Float32) -> NDArray[np.intp]:
    """The candidates from the nearest one on; of equally near ones the first is the one that is taken."""
    return np.argsort(-similarity, kind="stable")
