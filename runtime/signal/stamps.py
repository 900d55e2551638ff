"""Stamps of a whole recording without their jitter, and the stretches that have no gap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Off from one sample's distance by so many times what nearly all samples are off, and by so many samples, is a gap.
_GAP, _NEARLY_ALL, _GAP_SAMPLES = 3.0, 0.99, 0.75


@dataclass(frozen=True, kw_only=True, eq=False)
class Stretches:
    """Times (n,) float64, on a line within each stretch; first sample and the one behind the last of each stretch.

    `sfreq` is how many samples a second there were in them, 0.0 where nobody can say.
    """

    times: NDArray[np.float64]
    segments: tuple[tuple[int, int], ...]
    sfreq: float


def stretches(stamps: NDArray[np.float64], sfreq: float) -> Stretches:
    """Part a recording at its gaps, and draw a line through the stamps of each part.

    What counts as a gap depends on the recording's own jitter: stamps that come in bunches are one stretch, and a
    single sample that is missing parts stamps that are as regular as they should be.

    Parameters
    ----------
    stamps
        (n,) float64, in seconds.
    sfreq
        Nominal samples per second, above 0.
    """
    if len(stamps) < 2:
        return Stretches(times=stamps, segments=((0, len(stamps)),) if len(stamps) else (), sfreq=0.0)
    off = np.abs(np.diff(stamps) - 1 / sfreq)
    most = max(_GAP_SAMPLES / sfreq, _GAP * float(np.quantile(off, _NEARLY_ALL)))
    edges = [0, *(np.flatnonzero(~(off <= most)) + 1).tolist(), len(stamps)]
    segments = tuple(zip(edges[:-1], edges[1:], strict=True))
    times, seconds, n_steps = stamps.copy(), 0.0, 0
    for start, stop in segments:
        if stop - start > 1:
            step, first = np.polyfit(np.arange(stop - start), stamps[start:stop] - stamps[start], 1)
            times[start:stop] = stamps[start] + first + step * np.arange(stop - start)
            seconds, n_steps = seconds + step * (stop - start - 1), n_steps + stop - start - 1
    return Stretches(times=times, segments=segments, sfreq=n_steps / seconds if seconds > 0 else 0.0)
