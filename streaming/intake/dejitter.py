"""The times of samples without the jitter of their stamps: a line followed from sample to sample.

Stamps of a regular signal lie near a line, time = first + period · number. Its two numbers are estimated by a Kalman
filter with constant velocity, started from the nominal period, which forgets after half a minute. One sample at a time:
however a signal is cut into chunks, no bit changes. A new stretch of signal starts a new line.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...runtime.signal.ring import Ring

# Seconds after which the line has forgotten, and the standard deviation of a nominal rate's error.
_MEMORY, _RATE_SD = 30.0, 0.01
# Stamps that are so large a part of the learning apart are compared.
_PARTS = (4, 8, 16)
MOST_OFF = 0.01
"""How far the measured rate may be from the declared one: beyond, there are no epochs."""


class Timeline:
    """The times of one stretch's samples, on the clock of their stamps.

    Parameters
    ----------
    period
        Nominal, in seconds.
    capacity
        How many of the last samples can be found again.
    learns
        In how many samples, from the first on, the jitter of the stamps is measured.
    """

    def __init__(self, period: float, capacity: int, learns: int = 0) -> None:
        self._nominal = period
        self.period = period
        self._times = Ring(1, capacity)
        self._origin = self._time = self._last = self._stamp = 0.0
        # The covariance of time and period in units of the nominal period; the stamps' own variance is 1.
        self._tt, self._tp, self._pp = 1.0, 0.0, _RATE_SD**2
        self._forget = (8 * (period / _MEMORY) ** 2) ** 2
        self._learns = learns
        self._lags: list[float] = []

    @property
    def n(self) -> int:
        """How many samples it has."""
        return self._times.total

    @property
    def first(self) -> float:
        """The first sample's stamp."""
        return self._origin

    @property
    def newest(self) -> float:
        """The last sample's time."""
        return self._origin + self._last

    @property
    def jitter(self) -> float:
        """By how many seconds the first stamps fell back behind those before them, on the line of their own rate."""
        return fallen_back(np.array(self._lags), MOST_OFF * self._nominal)

    def off(self, stamp: float) -> float:
        """By how many seconds a stamp is later than the next sample is expected."""
        return stamp - self._origin - self._time - self.period

    def extend(self, stamps: NDArray[np.float64], tolerance: float, *, back: bool = False) -> int:
        """Add the stamps up to the first that is off by more than `tolerance`, or, without `back`, not a later one.

        Returns
        -------
        How many were added.
        """
        values: Sequence[float] = stamps.tolist()
        if not values:
            return 0
        times = np.empty((1, len(values)))
        taken = 0
        if self.n == 0:
            self._origin = self._stamp = values[0]
            times[0, 0] = self._time = self._last = 0.0
            taken = 1
        origin, time, period, last, stamp = self._origin, self._time, self.period, self._last, self._stamp
        tt, tp, pp = self._tt, self._tp, self._pp
        for value in values[taken:]:
            error = value - origin - time - period
            if not (-tolerance <= error <= tolerance) or (value <= stamp and not back):
                break
            tt += 2 * tp + pp
            tp += pp
            pp += self._forget
            gain_time, gain_period = tt / (tt + 1), tp / (tt + 1)
            pp -= gain_period * tp
            tt, tp = gain_time, gain_period
            time += period + gain_time * error
            period += gain_period * error
            stamp = value
            last = time if time > last else last  # the first few times may fall back, as their stamps do
            times[0, taken] = last
            taken += 1
        self._time, self.period, self._last, self._stamp = time, period, last, stamp
        self._tt, self._tp, self._pp = tt, tp, pp
        if (n_before := len(self._lags)) < self._learns:
            number = self.n + np.arange(taken)
            lags = np.array(values[:taken]) - origin - number * self._nominal
            self._lags += lags[: self._learns - n_before].tolist()
        for start in range(0, taken, self._times.capacity):
            self._times.push(times[:, start : min(taken, start + self._times.capacity)])
        return taken

    def nearest(self, time: float) -> int | None:
        """The sample that is nearest to a time, of two the earlier; None where it is no longer held."""
        n_held = min(self.n, self._times.capacity)
        times = self._times.window(self.n - n_held, self.n)[0]
        wanted = time - self._origin
        after = int(np.searchsorted(times, wanted))
        if after == 0 and n_held < self.n and wanted < times[0]:
            return None
        if after == n_held or (after > 0 and wanted - times[after - 1] <= times[after] - wanted):
            after -= 1
        return self.n - n_held + after

    def time(self, sample: int) -> float | None:
        """The time of a sample; None where it is no longer held."""
        if not (0 <= sample < self.n and self._times.holds(sample)):
            return None
        return self._origin + float(self._times.window(sample, sample + 1)[0, 0])


def fallen_back(lags: NDArray[np.float64], most: float) -> float:
    """How far lags fall behind the largest before them, but for a steady fall: jitter does so, lost samples do not.

    A rate that is 0.5 % higher than declared makes all lags fall, by 10 ms in 2 s. That is no jitter, and taken for
    it, it would hide gaps. So the lags are taken from a line, of which the slope is not known: it may be 0, that of
    least squares, or, as samples may have been lost on the way, the median over pairs that are a quarter of the lags
    apart, or less. The one with which they fall the least counts.

    Parameters
    ----------
    lags
        (n,) seconds by which stamps are later than the nominal rate has them, in the order of the samples.
    most
        The steepest slope, in seconds per sample.
    """
    n = len(lags)
    slopes = [0.0]
    if n > 2:
        number = np.arange(n) - (n - 1) / 2
        slopes.append(float(number @ (lags - lags.mean()) / (number @ number)))
        for apart in {max(1, n // part) for part in _PARTS}:
            slopes.append(float(np.median(lags[apart:] - lags[:-apart]) / apart))
    return min((_fall(lags - np.arange(n) * min(max(slope, -most), most)) for slope in slopes), default=0.0)


def _fall(lags: NDArray[np.float64]) -> float:
    return float((np.maximum.accumulate(lags) - lags).max(initial=0.0))
