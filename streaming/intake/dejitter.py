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


class Timeline:
    """The times of one stretch's samples, on the clock of their stamps.

    Parameters
    ----------
    period
        Nominal, in seconds.
    capacity
        How many of the last samples can be found again.
    """

    def __init__(self, period: float, capacity: int) -> None:
        self._nominal = period
        self.period = period
        self._times = Ring(1, capacity)
        self._origin = self._time = self._last = self._stamp = 0.0
        # The covariance of time and period in units of the nominal period; the stamps' own variance is 1.
        self._tt, self._tp, self._pp = 1.0, 0.0, _RATE_SD**2
        self._forget = (8 * (period / _MEMORY) ** 2) ** 2
        self._peak = 0.0
        self.jitter = 0.0

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
        tt, tp, pp, peak, jitter = self._tt, self._tp, self._pp, self._peak, self.jitter
        number, nominal = self.n, self._nominal
        for value in values[taken:]:
            error = value - origin - time - period
            if not (-tolerance <= error <= tolerance) or (value <= stamp and not back):
                break
            # How far stamps fell back behind the ones before them: jitter does that, samples that are lost do not.
            lag = value - origin - (number + taken) * nominal
            peak = lag if lag > peak else peak
            jitter = peak - lag if peak - lag > jitter else jitter
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
        self._tt, self._tp, self._pp, self._peak, self.jitter = tt, tp, pp, peak, jitter
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
