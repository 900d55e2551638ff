"""What passes from a source to the epochs: samples, markers, clock offsets and what happened, each as it came.

Times are seconds. A *stamp* is on the clock of the machine that sent it. Everything else is on this machine's
`local_clock()` of LSL (monotonic). A stamp plus its stream's clock offset is a time on the local clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..runtime.data.layout import Channel

SIGNAL, MARKERS = "signal", "markers"
"""The two streams of a source."""

DTYPES = {"double64": "float64"} | {name: name for name in ("float32", "int8", "int16", "int32", "int64")}
"""LSL's and XDF's names of a channel's format, and numpy's."""


@dataclass(frozen=True, kw_only=True)
class SignalInfo:
    """What a source says about its signal.

    Attributes
    ----------
    name, source_id, uid, hostname
        Of the stream or the recording; hostile text, at most as long as it came.
    channels
        In the order of the rows.
    sfreq
        Nominal, in Hz.
    units
        Of each channel, as declared ("microvolts", "V", "T", "fT"), "" where nothing was.
    dtype
        numpy's name of the numbers' type at the sender; here they are float64 whatever it is.
    """

    name: str
    channels: tuple[Channel, ...]
    sfreq: float
    units: tuple[str, ...]
    source_id: str = ""
    uid: str = ""
    hostname: str = ""
    dtype: str = "float64"


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Samples that arrived together: stamps (n,) float64, data (n_channels, n) float64 in the source's units."""

    stamps: NDArray[np.float64]
    data: NDArray[np.float64]
    arrived: float


@dataclass(frozen=True, kw_only=True)
class Marker:
    """One marker as it came: `ordinal` counts from 0 in the order of arrival and is never used twice in a session.

    `raw` are its bytes. A marker of an integer stream or a stimulus channel has its number in decimal digits there.
    """

    ordinal: int
    stamp: float
    arrived: float
    raw: bytes

    @property
    def text(self) -> str:
        """For people and patterns; bytes that are no UTF-8 are replaced."""
        return self.raw.decode("utf-8", "replace")


@dataclass(frozen=True, kw_only=True)
class ClockOffset:
    """At the local time `at`, a stamp of `stream` plus `offset` was the local time, give or take `uncertainty`."""

    stream: str
    at: float
    offset: float
    uncertainty: float


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something happened to a stream, in one sentence.

    `kind` is one of KINDS; `info` is the new description where it changed; `n_lost` is how many samples or markers of
    the stream were lost, 0 where that is not known. What was received before stays valid.
    """

    kind: str
    stream: str
    at: float
    text: str
    info: SignalInfo | None = None
    n_lost: int = 0


KINDS = ("silent", "stale", "lost", "recovered", "changed", "dropped", "clock", "warning", "ended")
"""silent: nothing comes; stale: what comes is old; lost: the stream is gone; recovered: it is back, perhaps another
process; changed: it is back with other channels, rate or units; dropped: samples or markers were lost, counted in the
text; clock: the offset cannot be measured or jumped, or the stamps are on no clock of LSL's; warning: what a stream
says of itself will make trouble; ended: a recording is over."""

Item = Samples | Marker | ClockOffset | Notice
