"""What a step of the chain becomes when it is opened: a `Stage` over the continuous signal, or a step over epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..data.layout import UNITS, Channel

Array = NDArray[np.float64]
Push = Callable[[Array], Array]


@dataclass(frozen=True, kw_only=True, eq=False)
class Filtered:
    """A filter that the signal went through: its sections, at what rate, and 1 for one pass or 2 for two."""

    sos: Array
    sfreq: float
    passes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Continuous:
    """A continuous signal at one place of the chain: its channels, its rate in Hz, the filters behind it."""

    channels: tuple[Channel, ...]
    sfreq: float
    filters: tuple[Filtered, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One step over the continuous signal.

    Attributes
    ----------
    after
        The signal that it gives.
    start
        Makes a function with a memory of its own, which takes the chunks of one recording in their order,
        (n_channels, n) float64, and gives what is ready, (n_channels_after, m) float64. How the recording is cut into
        chunks changes no bit of it.
    whole
        The step over a whole recording, for a step that is not causal; None where that is `start()(data)`.
    settles
        Seconds at a recording's start (and at its end, if it is not causal) that its beginning still shapes.
    delay
        Seconds by which it delays the signal at its pass band's middle.
    latency
        Seconds of later signal that it waits for. The time of what it then gives is the time in the recording.
    """

    after: Continuous
    start: Callable[[], Push]
    whole: Push | None = None
    settles: float = 0.0
    delay: float = 0.0
    latency: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Epochs at one place of the chain: channels, rate in Hz, and the samples from the event, `first` to the last.

    `scaled` where the values are no longer in V or T.
    """

    channels: tuple[Channel, ...]
    sfreq: float
    first: int
    n_times: int
    filters: tuple[Filtered, ...] = ()
    scaled: bool = False

    @property
    def times(self) -> Array:
        """(n_times,) seconds from the event."""
        times: Array = np.arange(self.first, self.first + self.n_times) / self.sfreq
        return times

    @property
    def tmin(self) -> float:
        """Seconds from the event to the first sample."""
        return self.first / self.sfreq

    @property
    def modality(self) -> str:
        """As of a data folder: "meg" where a channel is a magnetometer or gradiometer, "eeg" otherwise."""
        return "meg" if any(channel.type in ("mag", "grad") for channel in self.channels) else "eeg"

    @property
    def unit(self) -> str:
        """V or T, or "1" where the epochs were whitened or z-scored."""
        return "1" if self.scaled else UNITS[self.modality][0]


class Refused(Exception):
    """Raised by a step over epochs that an epoch does not pass; its text is the reason."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochStep:
    """One step over a single epoch: the epochs that it gives, and the function that makes one.

    `apply` takes (n_channels, n_times) float64, which it may change in place, and returns (n_channels_after,
    n_times_after); it raises :class:`Refused` with the reason where the epoch cannot be used.
    """

    after: Window
    apply: Callable[[Array], Array]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """An opened chain in its pieces.

    Attributes
    ----------
    input
        The signal that it is given.
    stages
        The steps over the continuous signal.
    window
        The epochs that are cut from what the last stage gives.
    steps
        The steps over each epoch.
    rate
        Samples behind the last stage per sample of the input.
    """

    input: Continuous
    stages: tuple[Stage, ...]
    window: Window
    steps: tuple[EpochStep, ...]
    rate: Fraction

    @property
    def warm_up(self) -> int:
        """Samples behind the last stage in which the filters have not settled."""
        return math.ceil(sum(stage.settles for stage in self.stages) * self.window.sfreq)

    @property
    def causal(self) -> bool:
        return all(stage.whole is None for stage in self.stages)

    def span(self, event: int) -> tuple[int, int]:
        """The samples behind the last stage, first and behind the last, of the epoch of an event in input samples.

        The event counts at the nearest sample, of two at the even one, as in MNE's resample.
        """
        start = round(event * self.rate) + self.window.first
        return start, start + self.window.n_times
