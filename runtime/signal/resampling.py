"""`resample`: to any rate, by a polyphase filter; as scipy.signal.resample_poly, but chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from ..errors import InputError
from .fields import check_names, flag, number
from .stage import Array, Continuous, Stage

# scipy.signal.resample_poly's own filter: a sinc of ten zero crossings a side in a Kaiser window.
_CROSSINGS = 10
_WINDOW = ("kaiser", 5.0)
_LARGEST = 1000


def open_resample(step: Mapping[str, Any], before: Continuous) -> Stage:
    """``{"name": "resample", "sfreq": Hz, "causal": bool, "latency": s}``.

    The filter is symmetric: it delays nothing, and needs `latency` seconds of later signal, for which a live system
    waits (83 ms from 1000 to 120 Hz). The recording counts as continued by its first sample at its start and, if not
    causal, by its last sample at its end; a causal one stops where it would need more. An event counts at the nearest
    sample of the new rate.
    """
    from scipy import signal  # takes a second to load

    check_names(step, {"sfreq", "causal", "latency"})
    sfreq, causal = number(step, "sfreq", "give the new rate in Hz, above 0", above=0), flag(step, "causal")
    ratio = rate_between(before.sfreq, sfreq)
    up, down = ratio.numerator, ratio.denominator
    n_half = _CROSSINGS * max(up, down)
    taps = up * signal.firwin(2 * n_half + 1, 1 / max(up, down), window=_WINDOW)
    latency = n_half / (up * before.sfreq)

    def whole(data: Array) -> Array:
        resampler = _Polyphase(taps, up, down)
        wanted = -(-data.shape[1] * up // down)
        tail = np.repeat(data[:, -1:], -(-n_half // up) + 1, axis=1)
        return np.concatenate([resampler.push(data), resampler.push(tail)], axis=1)[:, :wanted]

    return Stage(
        after=replace(before, sfreq=before.sfreq * up / down),
        start=lambda: _Polyphase(taps, up, down).push,
        whole=None if causal else whole,
        settles=latency,
        latency=latency,
    )


def rate_between(old: float, new: float) -> Fraction:
    """The ratio new / old as up / down, in whole numbers.

    Raises
    ------
    InputError
        It is no ratio of numbers up to 1000.
    """
    ratio = Fraction(new / old).limit_denominator(_LARGEST)
    if ratio.numerator == 0 or ratio.numerator > _LARGEST or abs(float(ratio) * old / new - 1) > 1e-9:
        raise InputError(
            f"{old:g} Hz cannot be resampled to {new:g} Hz: the rates have to be in a ratio of whole numbers up to "
            f"{_LARGEST}"
        )
    return ratio


class _Polyphase:
    """y[m] = sum over i of x[i] h[m down - i up + n_half], for every m whose later samples are there.

    Tap by tap, so that each output is the same sum in the same order however the input is cut.
    """

    def __init__(self, taps: Array, up: int, down: int) -> None:
        self._up, self._down, self._n_half = up, down, len(taps) // 2
        self._width = -(-len(taps) // up)  # inputs under the filter
        self._phases = np.zeros((up, self._width))
        for phase in range(up):
            own = taps[phase::up]
            self._phases[phase, : len(own)] = own
        self._held: Array | None = None  # inputs from `_from` on
        self._from = 0
        self._made = 0

    def push(self, chunk: Array) -> Array:
        if chunk.shape[1] == 0:
            return np.empty((len(chunk), 0))
        if self._held is None:
            self._held = np.repeat(chunk[:, :1], self._width, axis=1)  # before the recording: its first sample
            self._from = -self._width
        held = np.concatenate([self._held, chunk], axis=1)
        n_seen = self._from + held.shape[1]
        # Output m needs inputs up to floor((m down + n_half) / up).
        stop = max(self._made, -(-(n_seen * self._up - self._n_half) // self._down))
        centres = np.arange(self._made, stop) * self._down + self._n_half
        newest, phases = centres // self._up, centres % self._up
        made = np.zeros((len(chunk), len(centres)))
        for tap in range(self._width):
            made += self._phases[phases, tap] * held[:, newest - tap - self._from]
        self._made = stop
        oldest = max(0, (stop * self._down + self._n_half) // self._up - self._width + 1 - self._from)
        self._held, self._from = held[:, oldest:].copy(), self._from + oldest
        return made
