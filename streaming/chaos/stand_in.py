"""A decoder that gives back what it is given, so that nothing can be mixed up unseen; and may be made to fail."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import ResponseLayout
from ...runtime.decoders.belonging import Decoded
from ...runtime.decoders.scale import TrainingStatistics
from ...runtime.decoders.screen import screen_trial
from ...runtime.errors import InputError
from ..intake.events import Accepted
from .parts import Disturb, Parts


def statistics_of(epochs: Sequence[Accepted], layout: ResponseLayout) -> TrainingStatistics:
    """As if these epochs had been the training data."""
    data = np.stack([epoch.data for epoch in epochs]).astype(np.float64)
    return TrainingStatistics(
        mean=data.mean(axis=0).astype(np.float32), std=data.std(axis=0).astype(np.float32), layout=layout
    )


class StandIn:
    """What a session asks of a :class:`~...runtime.backends.base.Backend` where no picture is drawn.

    Epochs are announced by :meth:`expect`, in the order in which they will be decoded, so that a fault hits the same
    ones whenever their turn comes.

    Attributes
    ----------
    training
        Of the epochs that it decodes.
    candidates
        There are none.
    expected
        Ordinal to the response that must be decoded, of those that are good.
    hit
        Ordinal to the kind of fault that hits it.
    """

    candidates = None

    def __init__(self, training: TrainingStatistics, parts: Parts) -> None:
        self.training, self._parts = training, parts
        self.expected: dict[int, NDArray[np.float32]] = {}
        self.hit: dict[int, str] = {}
        self._coming: deque[Disturb | None] = deque()

    @property
    def decoder(self) -> StandIn:
        """What decodes."""
        return self

    def expect(self, epoch: Accepted) -> None:
        """An epoch is on its way; what is now wrong with the decoder will be wrong when it is decoded."""
        try:
            response, _ = screen_trial(np.asarray(epoch.data, np.float32), self.training)
        except InputError:  # an artefact, which no decoder is ever given
            return
        self.expected[epoch.ordinal] = response
        if self._parts.decoder is None:
            self._coming.append(None)
        else:
            self.hit[epoch.ordinal], disturb = self._parts.decoder
            self._coming.append(disturb)

    def decode(self, responses: NDArray[np.float32], *, semantic: bool = True) -> Decoded:
        """Each feature is the response."""
        decoded = Decoded(context=responses, latent=responses, structure=responses)
        disturb = self._coming.popleft()
        return decoded if disturb is None else disturb(decoded)
