"""How late this machine is: an outlet in a process of its own, received here, and the age of each sample measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import SIGNAL, ClockOffset, Item, Marker, Samples
from .ramp import STEP


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


def measure(load: Load, items: Sequence[Item], cpu: float) -> Measured:
    """From what was received of :func:`.ramp.ramp`.

    Parameters
    ----------
    cpu
        Seconds of processor per second.
    """
    samples = [item for item in items if isinstance(item, Samples)]
    numbers = np.concatenate([item.data[0] for item in samples]) if samples else np.empty(0)
    stamps = np.concatenate([item.stamps for item in samples]) if samples else np.empty(0)
    arrived = np.concatenate([np.full(len(item.stamps), item.arrived) for item in samples]) if samples else np.empty(0)
    late = arrived - _due(numbers, stamps, load)
    p50, p95, p99 = np.percentile(late, (50, 95, 99)).tolist() if len(late) else (np.inf,) * 3
    came = [item.raw for item in items if isinstance(item, Marker)]
    offsets = [item for item in items if isinstance(item, ClockOffset) and item.stream == SIGNAL]
    worst = max(offsets, key=lambda item: abs(item.offset) - item.uncertainty, default=None)
    return Measured(
        load=load,
        p50=p50,
        p95=p95,
        p99=p99,
        most=float(late.max()) if len(late) else np.inf,
        jitter=float(late.std()) if len(late) else np.inf,
        marker_most=max((item.arrived - item.stamp for item in items if isinstance(item, Marker)), default=0.0),
        n_lost=_lost(samples, load),
        n_markers_lost=len(set(range(len(load.marked))) - {int(raw) for raw in came if raw.isdigit()}),
        offset=0.0 if worst is None else worst.offset,
        uncertainty=0.0 if worst is None else worst.uncertainty,
        cpu=cpu,
    )


def _due(numbers: NDArray[np.float64], stamps: NDArray[np.float64], load: Load) -> NDArray[np.float64]:
    """When the last sample of each sample's chunk was due, which is when the chunk is sent."""
    last = np.minimum((numbers // load.chunk + 1) * load.chunk, load.n_samples) - 1
    return stamps + (last - numbers) / load.sfreq


def _lost(samples: Sequence[Samples], load: Load) -> int:
    """Samples that are missing, or have other values than were sent."""
    rows = STEP * np.arange(load.n_channels)[:, None]
    good = sum(
        int((item.data == rows + item.data[0]).all(axis=0).sum()) for item in samples if len(item.data) == len(rows)
    )
    return load.n_samples - good
