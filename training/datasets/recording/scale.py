"""Whether epochs are in V or T, as they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.layout import Channel
from ....runtime.errors import FileError

# Standard deviation in time of filtered epochs, the median over channels and epochs: from an amplifier's own noise to
# far more than any head gives. Signals lie between 1e-6 and 1e-4 V, 1e-14 and 1e-11 T, 1e-13 and 1e-10 T/m.
USUAL = {"eeg": (1e-8, 2e-3, "V"), "mag": (1e-16, 1e-9, "T"), "grad": (1e-15, 1e-8, "T/m")}
_UNITS = {
    "V": (("mV", 1e-3), ("uV", 1e-6), ("nV", 1e-9)),
    "T": (("pT", 1e-12), ("fT", 1e-15)),
    "T/m": (("fT/cm", 1e-13),),
}
_TYPICAL = {"eeg": 1e-5, "mag": 3e-13, "grad": 1e-11}


def check_scale(epochs: NDArray[np.float32], channels: Sequence[Channel], source: str) -> None:
    """Refuse epochs, (n, n_channels, n_times), that are not in V, T and T/m.

    Raises
    ------
    FileError
        A type of channel is on another scale; the message has what was found, what is usual, and the likely unit.
    """
    for kind, (low, high, unit) in USUAL.items():
        rows = [row for row, channel in enumerate(channels) if channel.type == kind]
        if not rows or not len(epochs):
            continue
        found = float(np.median(epochs[:, rows].std(axis=2, dtype=np.float64)))
        if found == 0 or low <= found <= high:
            continue
        guesses = [(abs(np.log(found * size / _TYPICAL[kind])), name) for name, size in _UNITS[unit]]
        advice = f"they look like {min(guesses)[1]}, try --unit {min(guesses)[1]}" if found > high else "check --unit"
        raise FileError(
            f"the {kind} channels of {source} have a standard deviation of {found:.3g} {unit} (median over epochs), "
            f"expected {low:.3g} to {high:.3g} {unit}: {advice}"
        )
