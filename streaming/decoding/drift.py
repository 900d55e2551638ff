"""A warning when the signal leaves the training distribution: not one epoch, which may be an artefact, but all of late.

Over the last epochs each channel has the root mean square of its z-scores by the training statistics: 1 in training, by
construction. A channel that is far louder (a loose electrode, line noise, another reference) is named. Where most are
far louder or quieter, the units or the filters are others.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from ...runtime.decoders.scale import TrainingStatistics

WINDOW = 16
# Sessions differ by a factor of two or so in what is loud; see runtime/decoders/scale.py.
LOUD, QUIET = 3.0, 1 / 3.0
_LEAST, _NAMED = 4, 6


class Drift:
    """The z-scores of the last `WINDOW` epochs.

    Parameters
    ----------
    training
        Of the decoder.
    averaging
        Whether responses are means of several epochs, which are quieter: then no channel is too quiet.
    """

    def __init__(self, training: TrainingStatistics, *, averaging: bool = False) -> None:
        self._training, self._quiet = training, 0.0 if averaging else QUIET
        self._squares: deque[NDArray[np.float64]] = deque(maxlen=WINDOW)
        self._varying = (training.std > 0).sum(axis=1)
        self.outside: tuple[str, ...] = ()

    def add(self, response: NDArray[np.float32]) -> str | None:
        """Take one more response (n_channels, n_times): a sentence when channels leave or come back, else None."""
        scores = self._training.scores(response[None])[0].astype(np.float64)
        self._squares.append((scores**2).sum(axis=1) / np.maximum(self._varying, 1))
        if len(self._squares) < _LEAST:
            return None
        size = np.sqrt(np.mean(self._squares, axis=0))
        far = (self._varying > 0) & ((size > LOUD) | (size < self._quiet))
        names = tuple(self._names()[channel] for channel in np.flatnonzero(far))
        before, self.outside = self.outside, names
        if names == before:
            return None
        if not names:
            return "the signal is back in the range of the training data"
        if set(names) <= set(before):
            return None
        worst = size[far][np.abs(np.log(np.maximum(size[far], 1e-12))).argmax()]
        shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        return (
            f"the signal has left the range of the training data in {len(names)} of {len(far)} channels ({shown}): over"
            f" the last {len(self._squares)} epochs up to {worst:.2g} times the size of training; check these "
            "electrodes, the reference and the units, what is decoded may be wrong"
        )

    def _names(self) -> list[str]:
        layout = self._training.layout
        if layout is None or layout.channels is None:
            return [str(number) for number in range(len(self._varying))]
        return [channel.name for channel in layout.channels]
