"""Results of a session as LSL streams: what the session knows, in the words of :mod:`~..lsl.results`."""

from __future__ import annotations

import math

import numpy as np

from ...runtime.backends.base import Decoder
from ...runtime.closing import Closing
from ..decoding.decode import DecodedEpoch
from ..lsl.results import Result, ResultOutlet


class SessionOutlet(Closing):
    """Sends every decoded epoch.

    The embedding is the decoded semantic feature where that is decoded; else the similarity to each candidate; else the
    decoded latent.

    Parameters
    ----------
    name
        Of the stream.
    decoder
        Of the session.
    semantic
        Whether the semantic feature is decoded.
    """

    def __init__(self, name: str, decoder: Decoder, *, semantic: bool) -> None:
        candidates = decoder.candidates
        if semantic:
            feature, n = "semantic", math.prod(decoder.shapes["semantic"])
        elif candidates is not None:
            feature, n = "similarity", len(candidates.names)
        else:
            feature, n = "latent", math.prod(decoder.shapes["latent"])
        self._feature, self._outlet = feature, ResultOutlet(name, feature, n)

    def push(self, decoded: DecodedEpoch, latency: float, at: float) -> None:
        """See :class:`.live.Outlet`."""
        source = decoded.similarity if self._feature == "similarity" else getattr(decoded.features, self._feature)
        self._outlet.push(
            Result(
                ordinal=decoded.ordinal,
                text=decoded.text,
                n_averaged=decoded.n_averaged,
                nearest=decoded.nearest,
                chance=None if decoded.chance is None else decoded.chance[0],
                latency=latency,
                embedding=np.asarray(source, np.float32).ravel(),
            ),
            at,
        )

    def close(self) -> None:
        """End the streams."""
        self._outlet.close()
