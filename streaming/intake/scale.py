"""Whether epochs are on the scale of the training data's: µV that are declared as V are a million times too large."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...runtime.decoders.scale import TrainingStatistics

# Beyond any movement or loose electrode, and below the factor between two units.
_MOST = 100.0
_FACTORS = {1e3: "a thousand", 1e6: "a million", 1e9: "a thousand million", 1e12: "10^12", 1e15: "10^15"}


class ScaleCheck:
    """Compares each epoch's standard deviation over time with that of the training data.

    Parameters
    ----------
    training
        Of the responses that the decoder was fitted on, before its normaliser.
    unit
        Of the epochs, for messages.
    """

    def __init__(self, training: TrainingStatistics, unit: str) -> None:
        mean, sd = np.asarray(training.mean, np.float64), np.asarray(training.std, np.float64)
        self._expected = np.sqrt((sd**2).mean(axis=1) + mean.var(axis=1))  # (n_channels,)
        self._unit = "" if unit == "1" else f" {unit}"

    def reason(self, epoch: NDArray[np.float64]) -> str | None:
        """Why an epoch (n_channels, n_times) cannot be on the scale of training; None where it can."""
        varied = self._expected > 0
        if not varied.any():
            return None
        found = epoch.std(axis=1, dtype=np.float64)[varied]
        ratio = float(np.median(found / self._expected[varied]))
        if 1 / _MOST <= ratio <= _MOST:
            return None
        there, here = float(np.median(self._expected[varied])), float(np.median(found))
        away = max(ratio, 1 / ratio) if ratio > 0 else math.inf
        guess = min(_FACTORS, key=lambda factor: abs(math.log(away / factor))) if math.isfinite(away) else None
        why = (
            "the channels are flat"
            if guess is None
            else f"about {_FACTORS[guess]} times too {'large' if ratio > 1 else 'small'}"
        )
        return (
            f"the epoch is not on the scale of the training data: its channels have a standard deviation of "
            f"{here:.3g}{self._unit} (median) and had {there:.3g}{self._unit} in training ({why}): check the unit that "
            "the source declares, or give --unit"
        )
