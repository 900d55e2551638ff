"""Stretches of signal without a gap: each has its own filters and its own line of times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...runtime.signal.chain import Chain
from .dejitter import Timeline

# Seconds that are held longer than they have to be: samples are worked on in pieces.
_SPARE = 1.0


@dataclass(frozen=True)
class Break:
    """Why a stretch ended, as it follows "touches a break in the signal: "; `nan` where its own values ended it."""

    text: str
    nan: bool = False


class Segment:
    """One stretch on its way through the chain.

    Parameters
    ----------
    chain
        Opened for the signal.
    number
        From 0.
    before
        Why it begins; None for the first of a session.
    trusted_after
        Local time after which the signal clock's offset has to be measured to hold for it.
    learns
        Samples at its beginning in which the jitter of the stamps is measured.
    late
        Seconds for which epochs are held.
    dtype
        Of the epochs.
    """

    def __init__(
        self,
        chain: Chain,
        number: int,
        *,
        before: Break | None,
        trusted_after: float,
        learns: int,
        late: float,
        dtype: type[Any],
    ) -> None:
        plan = chain.plan
        self.number, self.before = number, before
        self.after: Break | None = None
        self.trusted_after, self.learns = trusted_after, learns
        self.stream = chain.stream(keep=late + _SPARE, dtype=dtype)
        self.period = 1 / plan.input.sfreq
        self._plan = plan
        held = late + _SPARE + (plan.window.n_times + abs(plan.window.first)) / plan.window.sfreq + chain.latency
        self.timeline = Timeline(self.period, round(held * plan.input.sfreq) + 2, learns)

    @property
    def n(self) -> int:
        """Samples of it that came."""
        return self.timeline.n

    @property
    def is_short(self) -> bool:
        """Whether it has fewer samples than an epoch."""
        return self.n * self._plan.rate < self._plan.window.n_times

    def end(self, why: Break) -> None:
        """Nothing more comes; epochs of events that are marked later are still cut."""
        self.after = why

    def begins(self, sample: int) -> float:
        """Where the epoch of an event at `sample` begins, in seconds from the stretch's first sample."""
        return self._plan.span(sample)[0] / self._plan.window.sfreq

    def in_learning(self, sample: int) -> bool:
        """Whether the epoch of an event at `sample` begins while the stamps' jitter is measured."""
        return self.begins(sample) < self.learns * self.period

    def rate(self, sample: int) -> float | None:
        """Samples per second over the epoch of an event at `sample`, as its times say; None for a single sample."""
        window = self._plan.window
        first = sample + round(window.first * self._plan.input.sfreq / window.sfreq)
        last = min(first + round((window.n_times - 1) * self._plan.input.sfreq / window.sfreq), self.n - 1)
        times = self.timeline.time(max(first, 0)), self.timeline.time(last)
        if times[0] is None or times[1] is None or times[1] <= times[0]:
            return None
        return (last - max(first, 0)) / (times[1] - times[0])
