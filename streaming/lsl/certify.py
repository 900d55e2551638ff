"""How late this machine is: an outlet in a process of its own, received here, and the age of each sample measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import SIGNAL, ClockOffset, Item, Marker, Samples
from .ramp import STEP

# Latencies are counted in bins, from a microsecond to some hours, each a thousandth wider than the one before: figures
# are true to that, and memory does not grow with the seconds.
_LEAST, _RATIO, _N_BINS = 1e-6, 1.001, 24_000


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is sent: channels, rate in Hz, samples that are sent together, seconds."""

    n_channels: int
    sfreq: float
    chunk: int
    seconds: float

    @property
    def n_samples(self) -> int:
        """How many are sent."""
        return round(self.seconds * self.sfreq)

    @property
    def marked(self) -> range:
        """The samples with a marker: one a second, from half a second on."""
        return range(max(1, round(self.sfreq / 2)), self.n_samples, max(1, round(self.sfreq)))

    def __str__(self) -> str:
        how = "single samples" if self.chunk == 1 else f"chunks of {self.chunk}"
        return f"{self.n_channels} channels at {self.sfreq:g} Hz, {how}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run; latencies are in seconds, of a sample from the moment at which the last of its chunk was due.

    Attributes
    ----------
    p50, p95, p99, most
        Of the latency.
    jitter
        Standard deviation of the latency.
    marker_most
        The latest marker.
    n_lost, n_markers_lost
        Samples that were sent and did not come, or came wrong; markers that did not come.
    offset, uncertainty
        Of the clock, which is the same at both ends: what is measured is the error of the measurement.
    cpu
        Seconds of processor per second, of this process.
    """

    load: Load
    p50: float
    p95: float
    p99: float
    most: float
    jitter: float
    marker_most: float
    n_lost: int
    n_markers_lost: int
    offset: float
    uncertainty: float
    cpu: float

    def failures(self, bound: float) -> list[str]:
        """Why it does not pass, for a bound of the 99th percentile in seconds; empty where it does."""
        found = []
        if self.n_lost:
            found.append(f"{self.n_lost} of {self.load.n_samples} samples did not come as they were sent")
        if self.n_markers_lost:
            found.append(f"{self.n_markers_lost} of {len(self.load.marked)} markers did not come")
        if self.p99 > bound:
            found.append(f"1 sample in 100 is later than {self.p99 * 1e3:.1f} ms; the bound is {bound * 1e3:g} ms")
        if abs(self.offset) > self.uncertainty:
            found.append(f"the clock was measured {self.offset * 1e3:+.3f} ms off, and is the same one")
        return found

    def as_json(self) -> dict[str, Any]:
        """All of it; None where nothing came."""
        return {name: None if value == np.inf else value for name, value in asdict(self).items()}


class Meter:
    """Takes what is received of :func:`.ramp.ramp` and keeps counts alone, however long it lasts.

    Parameters
    ----------
    load
        What is sent.

    Attributes
    ----------
    n_received, n_markers
        Samples and markers that came.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._counts = np.zeros(_N_BINS, np.int64)
        self._sum = self._squares = 0.0
        self._most, self._marker_most = -np.inf, 0.0
        self._last, self._n_good = -1.0, 0
        self._came = np.zeros(len(load.marked), bool)
        self._worst: ClockOffset | None = None
        self.n_received = self.n_markers = 0

    def add(self, items: Sequence[Item]) -> None:
        """Take what came, in its order."""
        for item in items:
            if isinstance(item, Samples):
                self._take_samples(item)
            elif isinstance(item, Marker):
                self.n_markers += 1
                self._marker_most = max(self._marker_most, item.arrived - item.stamp)
                if item.raw.isdigit() and int(item.raw) < len(self._came):
                    self._came[int(item.raw)] = True
            elif isinstance(item, ClockOffset) and item.stream == SIGNAL:
                worst = self._worst
                if worst is None or _off(item) > _off(worst):
                    self._worst = item

    def measured(self, cpu: float) -> Measured:
        """What was measured; `cpu` in seconds of processor per second."""
        n, worst = self.n_received, self._worst
        p50, p95, p99 = (self._percentile(share) for share in (0.50, 0.95, 0.99)) if n else (np.inf,) * 3
        return Measured(
            load=self._load,
            p50=p50,
            p95=p95,
            p99=p99,
            most=self._most if n else np.inf,
            jitter=float(np.sqrt(max(0.0, self._squares / n - (self._sum / n) ** 2))) if n else np.inf,
            marker_most=self._marker_most,
            n_lost=self._load.n_samples - self._n_good,
            n_markers_lost=int((~self._came).sum()),
            offset=0.0 if worst is None else worst.offset,
            uncertainty=0.0 if worst is None else worst.uncertainty,
            cpu=cpu,
        )

    def _take_samples(self, item: Samples) -> None:
        n = len(item.stamps)
        if not n:
            return
        numbers = item.data[0]
        self.n_received += n
        late = item.arrived - self._due(numbers, item.stamps)
        self._counts += np.bincount(_bin_of(late), minlength=_N_BINS)
        self._sum, self._squares = self._sum + float(late.sum()), self._squares + float((late**2).sum())
        self._most = max(self._most, float(late.max()))
        if len(item.data) == self._load.n_channels:
            expected = STEP * np.arange(self._load.n_channels)[:, None] + numbers
            # One that comes again, or out of its order, makes up for none that is missing.
            before = np.maximum.accumulate(np.concatenate([[self._last], numbers]))
            self._n_good += int(((item.data == expected).all(axis=0) & (numbers > before[:-1])).sum())
            self._last = float(before[-1])

    def _due(self, numbers: NDArray[np.float64], stamps: NDArray[np.float64]) -> NDArray[np.float64]:
        """When the last sample of each sample's chunk was due, which is when the chunk is sent."""
        load = self._load
        last = np.minimum((numbers // load.chunk + 1) * load.chunk, load.n_samples) - 1
        return stamps + (last - numbers) / load.sfreq

    def _percentile(self, share: float) -> float:
        """As np.percentile, of the middles of the bins; the largest is known exactly."""
        rank = share * (self.n_received - 1)
        below, above = (self._at(int(np.floor(rank))), self._at(int(np.ceil(rank))))
        return min(below + (rank % 1) * (above - below), self._most)

    def _at(self, rank: int) -> float:
        place = int(np.searchsorted(np.cumsum(self._counts), rank, side="right"))
        return 0.0 if place == 0 else float(_LEAST * _RATIO ** (place - 0.5))


def _bin_of(late: NDArray[np.float64]) -> NDArray[np.intp]:
    """Bin 0 for all that is not late, then bins that each are a thousandth wider than the one before."""
    with np.errstate(divide="ignore", invalid="ignore"):
        places = 1 + np.floor(np.log(np.maximum(late, 0.0) / _LEAST) / np.log(_RATIO))
    return np.asarray(np.clip(places, 0, _N_BINS - 1), np.intp)


def _off(item: ClockOffset) -> float:
    """By how much an offset is beyond its uncertainty."""
    return abs(item.offset) - item.uncertainty
