"""A signal whose numbers say which sample they are, through the live path: they show the shift of every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...runtime.data.layout import Channel
from ...runtime.signal.chain import open_chain
from ..files.recorded import Recorded
from ..intake.events import Accepted, Event, Refused
from ..intake.intake import Intake
from ..intake.settings import IntakeSettings
from ..records import MARKERS, SIGNAL, ClockOffset, SignalInfo
from .compare import partition

SFREQ, STEP, FIRST, EVERY, N_MARKERS = 250.0, 100_000, 1250, 500, 20
_TMIN, _TMAX = -0.2, 0.8


@dataclass(frozen=True, kw_only=True)
class Shift:
    """By how many samples an epoch's time is off; None where the marker has no epoch, and why."""

    marker: int
    samples: int | None
    exact: bool
    reason: str | None = None


def ramp(
    *, n_channels: int = 8, pause: tuple[int, float] | None = None, jitter: float = 0.0, seed: int = 0
) -> Recorded:
    """Channel c has the value 100,000 c + i at sample i, at 250 Hz; marker k stands at sample 1250 + 500 k.

    Parameters
    ----------
    pause
        The sample before which the source is silent, and for how many seconds.
    jitter
        Standard deviation of the stamps in seconds.
    """
    n = FIRST + EVERY * N_MARKERS + 500
    times = 1000.0 + np.arange(n) / SFREQ
    if pause is not None:
        times[pause[0] :] += pause[1]
    stamps = times + np.random.default_rng(seed).normal(0.0, jitter, n) if jitter else times
    channels = tuple(Channel(name=f"E{row}", type="eeg") for row in range(n_channels))
    markers = [FIRST + EVERY * number for number in range(N_MARKERS)]
    return Recorded(
        info=SignalInfo(name="ramp", channels=channels, sfreq=SFREQ, units=("V",) * n_channels),
        stamps=stamps,
        read=lambda start, stop: STEP * np.arange(n_channels)[:, None] + np.arange(start, stop, dtype=float),
        markers=tuple((float(times[sample]), str(number).encode()) for number, sample in enumerate(markers)),
        offsets=tuple(ClockOffset(stream=name, at=999.0, offset=0.0, uncertainty=0.0) for name in (SIGNAL, MARKERS)),
    )


def shifts(
    recorded: Recorded, settings: IntakeSettings, rng: np.random.Generator | None = None, *, chunk: float = 0.01
) -> list[Shift]:
    """The ramp through the live path, cut as by `partition`; what each epoch's numbers say of its time."""
    channels = recorded.info.channels
    chain = open_chain({"steps": [{"name": "epoch", "tmin": _TMIN, "tmax": _TMAX}]}, channels, SFREQ)
    intake = Intake(chain, settings, dtype=np.float64)
    intake.start(recorded.info)
    events: list[Event] = []
    now = 0.0
    for now, items in partition(recorded, rng, chunk=chunk):
        events += intake.step(items, now)
    events += intake.finish(now)
    return [_shift(event, chain.plan.window.first) for event in _of_markers(events)]


def _of_markers(events: Sequence[Event]) -> list[Accepted | Refused]:
    found = [event for event in events if isinstance(event, Accepted | Refused)]
    return sorted(found, key=lambda event: event.ordinal)


def _shift(event: Accepted | Refused, first: int) -> Shift:
    if isinstance(event, Refused):
        return Shift(marker=event.ordinal, samples=None, exact=False, reason=event.reason)
    n_channels, n_times = event.data.shape
    start = FIRST + EVERY * event.ordinal + first
    off = int(event.data[0, 0]) - start
    expected = STEP * np.arange(n_channels)[:, None] + np.arange(start + off, start + off + n_times)
    whole = bool(np.array_equal(event.data, expected))
    return Shift(
        marker=event.ordinal,
        samples=off if whole else None,
        exact=whole and off == 0,
        reason=None if whole else "samples are missing or twice in it",
    )
