"""Whether a signal is in the unit that it should be in, by its size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Standard deviations of a channel, in V and T: from amplifier noise to wild artefacts and slow drifts.
_USUAL = {"V": (1e-8, 0.02), "T": (1e-16, 1e-8)}
_OTHERS = {
    "V": (("µV", 1e-6), ("nV", 1e-9), ("T, as of MEG", None)),
    "T": (("fT", 1e-15), ("pT", 1e-12), ("V, as of EEG", None)),
}
_EXAMPLE = {"V": "some 0.00001", "T": "some 1e-13"}
# Of whitened and z-scored epochs.
_SCALED = (0.02, 30.0)


def spread(data: NDArray[Any]) -> float:
    """The standard deviation of each channel, (n_channels, n_samples), the median over channels; 0 for no channels."""
    return float(np.median(np.std(np.asarray(data, np.float64), axis=-1))) if data.size else 0.0


def wrong_unit(found: float, unit: str) -> str | None:
    """What is wrong with a signal of this :func:`spread` that should be in V or T, in words; None where nothing is.

    The words continue "the signal ...".
    """
    low, high = _USUAL[unit]
    if low <= found <= high:
        return None
    if found == 0:
        return "is constant in most channels: the recording holds no signal, copy it again"
    said = f"has a standard deviation of {found:.3g} (median over channels), and one in {unit} has {_EXAMPLE[unit]}"
    if not np.isfinite(found):
        return "is NaN or infinite in most channels: the recording holds no signal, copy it again"
    for name, factor in _OTHERS[unit]:
        if factor is None:
            if found < low or unit == "T":
                return f"{said}: it looks like {name}, give the recording of this data set"
        elif low <= found * factor <= high and found > high and _likely(found * factor, unit):
            return f"{said}: it looks like {name}, multiply by {factor:g}"
    return f"{said}: bring it to {unit}"


def _likely(size: float, unit: str) -> bool:
    """Whether a signal would be of an everyday size; tells µV from nV."""
    low, high = {"V": (3e-7, 1e-2), "T": (1e-14, 1e-10)}[unit]
    return low <= size <= high


def unit_of_epochs(found: float, unit: str) -> str | None:
    """The unit of epochs of this spread: V or T as given, "1" where they are whitened or z-scored; None where neither.

    Parameters
    ----------
    found
        Their :func:`spread`.
    unit
        "V" or "T".
    """
    if _SCALED[0] < found <= _SCALED[1]:
        return "1"
    return unit if wrong_unit(found, unit) is None else None
