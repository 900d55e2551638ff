"""`decimate`: every k-th sample, of the continuous signal or of each epoch, behind a filter that prevents aliasing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .fields import check_names, whole
from .filters import gain
from .stage import Array, Continuous, EpochStep, Filtered, Push, Stage, Window

# What may be left of a frequency that folds onto the pass band: -20 dB. A Butterworth filter of order 4 needs a new
# rate of 2.8 times its edge for that; MNE warns below 3 times.
_MOST_ALIASED = 0.1
_HALF_POWER = 0.5**0.5
_N_FREQUENCIES = 2000


def open_decimate(step: Mapping[str, Any], before: Continuous) -> Stage:
    """``{"name": "decimate", "factor": k}`` before `epoch`: the samples 0, k, 2k, … of the recording.

    An event then counts at the nearest sample that is left, up to half of a new sample off.
    """
    factor = _factor(step, before.filters, before.sfreq)
    after = replace(before, sfreq=before.sfreq / factor)
    return Stage(after=after, start=lambda: _every(factor))


def open_decimate_epochs(step: Mapping[str, Any], before: Window, folder: Path | None) -> EpochStep:
    """``{"name": "decimate", "factor": k}`` behind `epoch`: every k-th sample counted from the event, as MNE's `decim`.

    Each epoch keeps the event's own sample, whichever phase it has in the recording.
    """
    factor = _factor(step, before.filters, before.sfreq)
    skipped = -before.first % factor
    n_times = len(range(skipped, before.n_times, factor))
    if n_times == 0:
        raise InputError(f"decimating by {factor} leaves no sample of {before.n_times}: give a smaller factor")
    after = replace(before, sfreq=before.sfreq / factor, first=(before.first + skipped) // factor, n_times=n_times)
    return EpochStep(after=after, apply=lambda epoch: epoch[:, skipped::factor])


def _every(factor: int) -> Push:
    seen = 0

    def push(chunk: Array) -> Array:
        nonlocal seen
        kept = chunk[:, -seen % factor :: factor]
        seen += chunk.shape[1]
        return kept

    return push


def _factor(step: Mapping[str, Any], filters: Sequence[Filtered], sfreq: float) -> int:
    check_names(step, {"factor"})
    factor = whole(step, "factor", "give a whole number from 1", least=1)
    if factor > 1:
        _check_protected(filters, sfreq, factor)
    return factor


def _check_protected(filters: Sequence[Filtered], sfreq: float, factor: int) -> None:
    """Refuse where frequencies that fold onto the pass band of the filters are not weakened by them."""
    new, nyquist = sfreq / factor, sfreq / 2
    frequencies = np.linspace(0, nyquist, _N_FREQUENCIES, endpoint=False)
    gains = gain(filters, frequencies)
    passed = frequencies[gains >= _HALF_POWER * gains.max()]
    edge = min(float(passed.max()), new / 2)
    folding = np.linspace(new - edge, nyquist, _N_FREQUENCIES, endpoint=False)
    left = gain(filters, folding) / gains.max()
    worst = int(left.argmax())
    if left[worst] > _MOST_ALIASED:
        raise InputError(
            f"decimating {sfreq:g} Hz by {factor} gives {new:g} Hz, and the filters before it leave "
            f"{100 * left[worst]:.0f} % of {folding[worst]:.4g} Hz, which would fold into what they pass (up to "
            f"{edge:.4g} Hz): put a low-pass of at most {new / 3:.4g} Hz before it, or decimate by less"
        )
