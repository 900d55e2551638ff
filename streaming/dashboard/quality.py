"""What is wrong with a channel, from its last seconds: flat, railed, line hum, noisy, missing.

The limits are rules of thumb for signals as an amplifier gives them, before any filter: a sign to look at the
electrode, never a reason to reject an epoch (the bundle's own chain decides that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FAULTS = ("missing", "flat", "railed", "hum", "noisy")
"""The worst first. missing: values that are no numbers; flat: nearly no signal; railed: it stays at the end of the
amplifier's range; hum: most of its power is the mains'; noisy: far stronger than a brain, or than its neighbours."""


@dataclass(frozen=True)
class Limits:
    """Standard deviations in SI units (V, T, T/m) below which a channel is flat, and above which it is noisy."""

    flat: float
    noisy: float


LIMITS: Mapping[str, Limits] = {
    "eeg": Limits(0.5e-6, 100e-6),
    "eog": Limits(0.5e-6, 500e-6),
    "ecg": Limits(0.5e-6, 5e-3),
    "emg": Limits(0.5e-6, 5e-3),
    "mag": Limits(5e-15, 20e-12),
    "ref_meg": Limits(5e-15, 100e-12),
    "grad": Limits(5e-13, 500e-12),
}
LINES = (50.0, 60.0)
_MOST_HUM = 0.5
_TIMES_OTHERS = 4.0
_FEWEST_OTHERS = 5
# Of samples: the share at an end of the range, and how many times as many as lie just beside it.
_RAILED_SHARE, _RAILED_PEAK, _BESIDE = 0.02, 4.0, 0.02
_LOWEST = 1.0
_WIDTH = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Assessment:
    """Of each channel: its faults, the worst first; standard deviation (n_channels,), SI units; hum (n_channels,).

    `hum` is the share of power at the mains' frequency; NaN where the rate is too low to tell.
    """

    faults: tuple[tuple[str, ...], ...]
    deviations: Array
    hum: Array


def assess(data: Array, types: Sequence[str], sfreq: float, line: float | None = None) -> Assessment:
    """Find the faults of channels.

    Parameters
    ----------
    data
        (n_channels, n_samples) in SI units (V, T, T/m), without a gap; at least a second of it.
    types
        Of each channel, as in `runtime.data.layout.CHANNEL_TYPES`. One without limits ("misc") can only be missing,
        railed or constant.
    sfreq
        In Hz.
    line
        The mains' frequency in Hz; None: the stronger of 50 and 60.
    """
    missing = np.asarray(~np.isfinite(data).all(axis=1))
    whole = np.where(missing[:, None], 0.0, data)
    level = _without_trend(whole)
    deviations = level.std(axis=1)
    hum = _hum(level, sfreq, LINES if line is None else (line,))
    constant = np.ptp(whole, axis=1) == 0
    limits = [LIMITS.get(kind) for kind in types]
    found: dict[str, NDArray[np.bool_]] = {
        "missing": missing,
        "flat": constant | (deviations < np.array([limit.flat if limit else -np.inf for limit in limits])),
        "railed": _railed(whole) & ~constant,
        "hum": hum > _MOST_HUM,
        "noisy": _noisy(deviations, types, limits),
    }
    # What is not there, or not more than the amplifier's own noise, can be nothing else.
    nothing = found["missing"] | found["flat"]
    found["flat"] = found["flat"] & ~missing
    for name in ("railed", "hum", "noisy"):
        found[name] = found[name] & ~nothing
    return Assessment(
        faults=tuple(tuple(name for name in FAULTS if found[name][row]) for row in range(len(data))),
        deviations=np.where(missing, np.nan, deviations),
        hum=np.where(nothing, np.nan, hum),
    )


def _without_trend(data: Array) -> Array:
    """Less its straight line: a slow drift is no noise."""
    times = np.linspace(-1.0, 1.0, data.shape[1])
    centred = data - data.mean(axis=1, keepdims=True)
    return np.asarray(centred - np.outer(centred @ times / (times @ times), times))


def _hum(level: Array, sfreq: float, lines: Sequence[float]) -> Array:
    """The share of power above 1 Hz that lies within 1 Hz of the line's frequency or of twice it, the strongest line's.

    A Hann window, as the window of seconds need not hold whole periods.
    """
    n = level.shape[1]
    frequencies = np.fft.rfftfreq(n, 1 / sfreq)
    power = np.abs(np.fft.rfft(level * np.hanning(n + 1)[:n], axis=1)) ** 2
    total = power[:, frequencies >= _LOWEST].sum(axis=1)
    known = [line for line in lines if line + _WIDTH < sfreq / 2]
    if not known:
        return np.full(len(level), np.nan)
    shares = []
    for line in known:
        near = np.min([np.abs(frequencies - line), np.abs(frequencies - 2 * line)], axis=0) <= _WIDTH
        shares.append(power[:, near].sum(axis=1))
    return np.asarray(np.max(shares, axis=0) / np.maximum(total, np.finfo(float).tiny))


def _railed(data: Array) -> NDArray[np.bool_]:
    """Whether many samples are exactly the highest or the lowest, and few just beside it.

    A slow wave in coarse steps stays at its top too, but about as long one step below it.
    """
    low, high = data.min(axis=1, keepdims=True), data.max(axis=1, keepdims=True)
    steps = np.abs(np.diff(data, axis=1))
    step = np.where(steps > 0, steps, np.inf).min(axis=1, keepdims=True)
    beside = np.maximum(_BESIDE * (high - low), 1.5 * step)
    railed = np.zeros(len(data), bool)
    for distance in (data - low, high - data):
        at = (distance == 0).mean(axis=1)
        near = ((distance > 0) & (distance <= beside)).mean(axis=1)
        railed |= (at >= _RAILED_SHARE) & (at >= _RAILED_PEAK * near)
    return railed


def _noisy(deviations: Array, types: Sequence[str], limits: Sequence[Limits | None]) -> NDArray[np.bool_]:
    """Above the limit of its type, or four times the median of its kind where there are five or more."""
    kinds = np.array(types)
    noisy = deviations > np.array([limit.noisy if limit else np.inf for limit in limits])
    for kind in set(types) & set(LIMITS):
        rows = kinds == kind
        if rows.sum() >= _FEWEST_OTHERS:
            noisy |= rows & (deviations > _TIMES_OTHERS * np.median(deviations[rows]))
    return np.asarray(noisy)
