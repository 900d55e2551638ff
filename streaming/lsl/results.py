"""What was decoded, as streams for other programs: one of JSON texts, one of numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import ShapeError
from .library import pylsl_library
from .outlet import TEXTS, MarkerOutlet

TYPE, NUMBERS_TYPE = "Decoded", "DecodedEmbedding"
"""Types of the streams: no marker stream is chosen by mistake where only its type is asked for."""
HEAD = ("ordinal", "n_averaged", "latency", "similarity")
"""The first channels of the numbers; the embedding follows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What one epoch was decoded to.

    Attributes
    ----------
    ordinal, text
        Of the marker.
    n_averaged
        Of how many epochs it is the mean, 1 of a single one.
    nearest
        Concepts from the nearest one on, with their similarities; may be empty.
    chance
        Of a right answer by guessing, None where there are no concepts.
    latency
        Seconds from the epoch's end to its features.
    embedding
        (n,) of the decoded feature.
    """

    ordinal: int
    text: str
    n_averaged: int
    nearest: tuple[tuple[str, float], ...]
    chance: float | None
    latency: float
    embedding: NDArray[np.float32]


class ResultOutlet:
    """Sends results on two streams, with one stamp for both.

    The texts are one JSON object for each result: ordinal, text, n_averaged, concept, similarity, nearest, chance,
    latency. The numbers are float32, `HEAD` and then the embedding, each channel labelled; similarity is NaN where
    there are no concepts. Both have the stamp that `push` is given, so that they can be put together.

    Parameters
    ----------
    name
        Of the texts; the numbers' has "-embedding" behind it. They are the source_ids too.
    feature
        What the embedding is, such as "semantic": its channels are called feature/0, feature/1, …
    n_embedding
        How many numbers it has.
    """

    def __init__(self, name: str, feature: str, n_embedding: int) -> None:
        pylsl = pylsl_library()
        self._n = n_embedding
        self._texts: MarkerOutlet | None = MarkerOutlet(name, name, TEXTS, TYPE)
        labels = [*HEAD, *(f"{feature}/{column}" for column in range(n_embedding))]
        about = pylsl.StreamInfo(
            f"{name}-embedding", NUMBERS_TYPE, len(labels), pylsl.IRREGULAR_RATE, "float32", f"{name}-embedding"
        )
        about.set_channel_labels(labels)
        self._numbers = pylsl.StreamOutlet(about)

    def push(self, result: Result, at: float) -> None:
        """Send a result with a local time, such as that of its marker.

        Raises
        ------
        ShapeError
            The embedding has another length than was said.
        """
        if self._texts is None:
            return
        if result.embedding.shape != (self._n,):
            raise ShapeError(f"the embedding is {result.embedding.shape}: the outlet was opened for ({self._n},)")
        concept, similarity = result.nearest[0] if result.nearest else (None, None)
        said = {
            "ordinal": result.ordinal,
            "text": result.text,
            "n_averaged": result.n_averaged,
            "concept": concept,
            "similarity": similarity,
            "nearest": [[name, value] for name, value in result.nearest],
            "chance": result.chance,
            "latency": result.latency,
        }
        self._texts.push(json.dumps(said).encode(), at)
        head = (result.ordinal, result.n_averaged, result.latency, np.nan if similarity is None else similarity)
        self._numbers.push_sample([*map(float, head), *result.embedding.tolist()], at)

    def close(self) -> None:
        """End both streams; later results go nowhere."""
        if self._texts is not None:
            self._texts.close()
        self._texts = self._numbers = None
