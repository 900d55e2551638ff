"""What the intake gives: epochs for the decoder, markers that have none and why, and what happened to the signal.

Times are seconds on this machine's local clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..records import Notice

REJECTED, REFUSED, SKIPPED = "rejected", "refused", "skipped"
"""The epoch's own values rule it out; there is no such epoch, or its time is not certain; no event of this session."""


@dataclass(frozen=True, kw_only=True)
class EpochTimes:
    """When things happened to one epoch.

    Attributes
    ----------
    marker
        The marker's own time.
    marker_arrived
        When the marker came.
    epoch_end
        Of the last sample that the epoch needs, those that its resampling waits for included.
    ready
        When the intake gave it.
    sample_age
        Of the newest sample, at `ready`.
    offset, uncertainty
        Of the signal's clock; the uncertainty is of the signal's and the markers' together.
    """

    marker: float
    marker_arrived: float
    epoch_end: float
    ready: float
    sample_age: float
    offset: float
    uncertainty: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Accepted:
    """An epoch: data (n_channels, n_times) as the chain gives them, float32, not yet normalised by the decoder.

    `ordinal` is the marker's, `text` its own, at most `MOST_SHOWN` characters; `sample` is the marker's sample in
    segment number `segment`, both from 0.
    """

    ordinal: int
    text: str
    data: NDArray[np.float32] | NDArray[np.float64]
    segment: int
    sample: int
    times: EpochTimes


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A marker without an epoch: `state` is REJECTED, REFUSED or SKIPPED, and `reason` says why in a sentence."""

    ordinal: int
    text: str
    state: str
    reason: str
    at: float


@dataclass(frozen=True, kw_only=True)
class Said:
    """Something happened to the signal: a gap, a restart, another rate, or what the source itself said."""

    notice: Notice


Event = Accepted | Refused | Said


@dataclass(frozen=True, kw_only=True)
class IntakeState:
    """How the signal is, at one moment.

    Attributes
    ----------
    segment
        Number of the stretch without a gap, from 0; -1 before the first sample.
    sfreq, nominal
        Samples per second, as measured in this stretch and as declared; `sfreq` is None before it can be measured.
    sample_age
        Seconds since the newest sample was taken; None before the first.
    offset, uncertainty
        Of the signal's clock in seconds, as last measured; None before.
    n_samples
        That came; the last 20 ms may not be counted yet.
    n_used
        That went through the chain.
    n_duplicate, n_nan, n_unusable
        That came twice; that hold NaN or infinite values in a channel that is needed; that came while the source had
        other channels or another rate than the decoder needs. With `n_used` they are all that came.
    n_lost
        That never came: a full queue dropped them, as the source says. They are in none of the other counts.
    n_gaps
        How often the signal was split.
    warm_up_left
        Seconds of signal until the filters have settled; 0 when they have.
    n_waiting
        Markers that are neither accepted nor refused yet.
    problem
        Why no sample can be used at present, or None.
    """

    segment: int
    sfreq: float | None
    nominal: float
    sample_age: float | None
    offset: float | None
    uncertainty: float | None
    n_samples: int
    n_used: int
    n_duplicate: int
    n_nan: int
    n_unusable: int
    n_gaps: int
    warm_up_left: float
    n_waiting: int
    problem: str | None
    n_lost: int = 0
