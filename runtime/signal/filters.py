"""`filter`: second-order sections, forward in time (causal) or forward and backward (zero phase); and their design.

scipy.signal takes a second to load, and whoever only names a chain does not need it: it is imported where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..data.json_types import is_number
from ..errors import InputError, shown
from .fields import check_names, flag, number, number_or_null
from .stage import Array, Continuous, Filtered, Stage

# What is left of a filter's start when it counts as settled: 1 % of a step at the recording's first sample.
_SETTLED = 0.01
# The notch's width at -3 dB is its frequency divided by this, as of most recording software.
_NOTCH_QUALITY = 30.0
_SAME_RATE = 1e-6


def design_filter(
    sfreq: float,
    l_freq: float | None,
    h_freq: float | None,
    *,
    causal: bool,
    notch: float | Sequence[float] | None = None,
    order: int = 4,
) -> list[dict[str, Any]]:
    """Butterworth band-pass, high-pass or low-pass, then notches against the mains, as steps of a chain.

    Parameters
    ----------
    sfreq
        Samples per second of the signal that the filter is for.
    l_freq, h_freq
        Hz at which one pass leaves half of the power (-3 dB); zero-phase filters run twice and leave a quarter. None
        for no high-pass or no low-pass.
    causal
        Forward only: an output depends on no later sample, and is delayed. Otherwise forward and backward, without
        delay, for recordings only.
    notch
        Hz that are removed, one or several.
    order
        Of the Butterworth prototype; a band-pass has twice as many poles.

    Returns
    -------
    list
        One step for the band and one for the notches, where they are asked for. `delay` is the group delay in seconds
        at the geometric middle of the pass band (with no high-pass, at half of `h_freq`; with no low-pass, between
        `l_freq` and half of the sampling rate), 0 for a zero-phase filter.

    Raises
    ------
    InputError
        A frequency is not between 0 and half of the sampling rate, or they are in the wrong order.
    """
    from scipy import signal

    _check_design(sfreq, l_freq, h_freq, order)
    steps = []
    if l_freq is not None or h_freq is not None:
        kind = "lowpass" if l_freq is None else "highpass" if h_freq is None else "bandpass"
        edges = [edge for edge in (l_freq, h_freq) if edge is not None]
        sos = signal.butter(order, edges if len(edges) > 1 else edges[0], kind, fs=sfreq, output="sos")
        top = sfreq / 2 if h_freq is None else h_freq
        middle = top / 2 if l_freq is None else math.sqrt(l_freq * top)
        steps.append(_step(sos, sfreq, middle, causal, {"l_freq": l_freq, "h_freq": h_freq}))
    notches = [] if notch is None else [float(notch)] if is_number(notch) else list(notch)  # type: ignore[arg-type]
    if notches:
        for frequency in notches:
            if not is_number(frequency) or not 0 < frequency < sfreq / 2:
                raise InputError(
                    f"the notch is at {shown(frequency)} Hz, and the signal has {sfreq:g} Hz: give a frequency "
                    f"between 0 and {sfreq / 2:g} Hz"
                )
        sections = [signal.tf2sos(*signal.iirnotch(f, _NOTCH_QUALITY, fs=sfreq)) for f in notches]
        low, high = l_freq or 0.0, h_freq or sfreq / 2
        middle = math.sqrt(low * high) if low else high / 2
        steps.append(_step(np.concatenate(sections), sfreq, middle, causal, {"notch": notches}))
    return steps


def forward_only(step: Mapping[str, Any]) -> dict[str, Any]:
    """A zero-phase filter's step as a causal one: the same sections, once, with the delay that they then have."""
    sfreq = step.get("sfreq")
    if sfreq is None:
        return {**step, "causal": True}
    low, high = step.get("l_freq") or 0.0, step.get("h_freq") or sfreq / 2
    middle = math.sqrt(low * high) if low else high / 2
    delay = _group_delay(np.array(step["sos"], np.float64), middle, sfreq)
    return {**step, "causal": True, "delay": round(delay, 6)}


def _check_design(sfreq: float, l_freq: float | None, h_freq: float | None, order: int) -> None:
    for name, edge in (("l_freq", l_freq), ("h_freq", h_freq)):
        if edge is not None and not (is_number(edge) and 0 < edge < sfreq / 2):
            raise InputError(
                f"{name} is {shown(edge)} Hz, and the signal has {sfreq:g} Hz: give a frequency between 0 and "
                f"{sfreq / 2:g} Hz, or None for no such filter"
            )
    if l_freq is not None and h_freq is not None and l_freq >= h_freq:
        raise InputError(f"l_freq is {l_freq:g} Hz and h_freq {h_freq:g} Hz: the pass band lies between them")
    if not 1 <= order <= 12:
        raise InputError(f"the filter's order is {order}: give 1 to 12")


def _step(sos: Array, sfreq: float, middle: float, causal: bool, about: Mapping[str, Any]) -> dict[str, Any]:
    delay = _group_delay(sos, middle, sfreq) if causal else 0.0
    return {
        "name": "filter",
        "sos": sos.tolist(),
        "causal": causal,
        "delay": round(delay, 6),
        "sfreq": float(sfreq),
        **{name: value for name, value in about.items() if value is not None},
    }


def _group_delay(sos: Array, frequency: float, sfreq: float) -> float:
    """Seconds by which the sections delay the envelope of a wave of this frequency."""
    from scipy import signal

    delays = [signal.group_delay((row[:3], row[3:]), w=[frequency], fs=sfreq)[1][0] for row in sos]
    return float(sum(delays)) / sfreq


def open_filter(step: Mapping[str, Any], before: Continuous) -> Stage:
    """``{"name": "filter", "sos": [[6], …], "causal": bool, "delay": s, "sfreq": Hz}``.

    `sfreq` is the rate that it was designed for; another one is refused. `l_freq`, `h_freq` and `notch` say what it
    is, and are not read. A causal filter starts in the state that it would have after an endless signal of the first
    sample's value, so that a constant offset causes no transient and chunks make no difference.
    """
    check_names(step, {"sos", "causal", "delay", "sfreq", "l_freq", "h_freq", "notch"})
    sos = np.array(step.get("sos", ()), np.float64)
    if sos.size == 0:
        raise InputError("the step 'filter' has no sos: give its second-order sections")
    causal = flag(step, "causal")
    designed = number_or_null(step, "sfreq", "give the rate in Hz that the filter was designed for")
    if designed is not None and abs(designed / before.sfreq - 1) > _SAME_RATE:
        raise InputError(
            f"a filter of the chain was designed for {designed:g} Hz, and the signal there has {before.sfreq:g} Hz: "
            "record at the rate of training, or design the filter anew and fit again"
        )
    delay = number(step, "delay", "give seconds") if "delay" in step else 0.0
    n_settle = _settling(sos)
    passed = Filtered(sos=sos, sfreq=before.sfreq, passes=1 if causal else 2)
    after = replace(before, filters=(*before.filters, passed))
    return Stage(
        after=after,
        start=lambda: _Causal(sos).push,
        whole=None if causal else lambda data: _zero_phase(sos, data, n_settle),
        settles=n_settle / before.sfreq,
        delay=delay if causal else 0.0,
    )


def _settling(sos: Array) -> int:
    """Samples after which the slowest pole has decayed to `_SETTLED`."""
    radius = max(float(np.abs(np.roots(row[3:])).max(initial=0.0)) for row in sos)
    if radius >= 1:
        raise InputError("a filter of the chain is unstable (a pole lies outside the unit circle): design it anew")
    return math.ceil(math.log(_SETTLED) / math.log(radius)) if radius > 0 else len(sos) * 2


class _Causal:
    """A filter that remembers its state between chunks."""

    def __init__(self, sos: Array) -> None:
        from scipy import signal

        self._sos, self._filter = sos, signal.sosfilt
        self._first = signal.sosfilt_zi(sos)[:, None, :]
        self._state: Array | None = None

    def push(self, chunk: Array) -> Array:
        if chunk.shape[1] == 0:
            return chunk
        if self._state is None:
            self._state = self._first * chunk[None, :, :1]
        filtered, self._state = self._filter(self._sos, chunk, axis=1, zi=self._state)
        return filtered  # type: ignore[no-any-return]


def _zero_phase(sos: Array, data: Array, n_settle: int) -> Array:
    """Forward and backward, the ends extended by odd reflection until the filter has settled."""
    from scipy import signal

    if data.shape[1] == 0:
        return data
    n_pad = min(n_settle, data.shape[1] - 1)
    return signal.sosfiltfilt(sos, data, axis=1, padtype="odd", padlen=n_pad)  # type: ignore[no-any-return]


def gain(filters: Iterable[Filtered], frequencies: Array) -> Array:
    """The gain of all filters together, (n,) at `frequencies` in Hz."""
    from scipy import signal

    total = np.ones(len(frequencies))
    for passed in filters:
        response = np.abs(signal.sosfreqz(passed.sos, worN=frequencies, fs=passed.sfreq)[1])
        total *= response**passed.passes
    return total
