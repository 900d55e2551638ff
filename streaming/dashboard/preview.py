"""From samples to what the page shows of them: columns of the scrolling signal, and the quality of each channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...runtime.data.layout import Channel
from .messages import Message, Montage, Quality, Signal
from .places import places
from .quality import assess

COLUMN_S = 0.01
"""A column of the picture of the signal, or two samples where that is longer."""
_SHOWN_IN = {"mag": ("fT", 1e15), "ref_meg": ("fT", 1e15), "grad": ("fT/cm", 1e13), "misc": ("", 1.0)}
_VOLTS = ("µV", 1e6)
_EVERY_COLUMNS = 5
_WINDOW_S, _EVERY_S = 2.0, 1.0
_GAP_S = 0.05


class Preview:
    """What a page shows of a signal. It may be given all samples or leave some out: gaps show as gaps.

    Parameters
    ----------
    channels
        In the order of the rows of what is added.
    sfreq
        In Hz.
    factors
        (n_channels,): a value times its factor is in SI units (V, T, T/m); None: it is already.
    line
        The mains' frequency in Hz; None: 50 or 60, whichever is stronger.
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        sfreq: float,
        *,
        factors: ArrayLike | None = None,
        line: float | None = None,
    ) -> None:
        self._channels, self._sfreq, self._line = tuple(channels), sfreq, line
        self._types = tuple(channel.type for channel in channels)
        self._factors = np.ones((len(channels), 1)) if factors is None else np.reshape(factors, (len(channels), 1))
        self._shown_in = [_SHOWN_IN.get(kind, _VOLTS) for kind in self._types]
        self._scales = np.array([[scale] for _, scale in self._shown_in])
        self._per_column = max(2, round(COLUMN_S * sfreq))
        self._column = 0  # number of the next one
        self._held: list[NDArray[np.float64]] = []  # samples in SI units which are not shown yet
        self._since: float | None = None  # the time of the first of them
        self._expected: float | None = None  # the time of the next sample
        self._window: list[NDArray[np.float64]] = []  # the last samples in SI units, for the quality
        self._n_new = 0

    def montage(self) -> Montage:
        """The channels: published once, before anything else, and again where they change."""
        return Montage(
            names=tuple(channel.name for channel in self._channels),
            types=self._types,
            units=tuple(unit for unit, _ in self._shown_in),
            places=places(self._channels),
        )

    def add(self, times: NDArray[np.float64], data: NDArray[np.floating]) -> list[Message]:
        """What is new to show.

        Parameters
        ----------
        times
            (n,) seconds since the session began, of each sample. What is a twentieth of a second and two samples away
            from where it should be begins anew, behind a gap where it is later.
        data
            (n_channels, n), as the source gave it.
        """
        if len(times) == 0:
            return []
        signal = np.asarray(data, np.float64) * self._factors
        most = max(_GAP_S, 2 / self._sfreq)
        steps = np.diff(times, prepend=times[0] if self._expected is None else self._expected - 1 / self._sfreq)
        breaks = np.flatnonzero(np.abs(steps - 1 / self._sfreq) > most)
        new: list[Message] = []
        if self._expected is None:
            breaks = breaks[breaks > 0]
            self._since = float(times[0])
        starts = sorted({0, *breaks.tolist()})
        for start, stop in zip(starts, [*starts[1:], len(times)], strict=True):
            if start in breaks:
                new += self._signal(everything=True)
                self._begin_anew(float(times[start]), float(steps[start]))
            new += self._follow(signal[:, start:stop])
            self._expected = float(times[stop - 1]) + 1 / self._sfreq
        return new

    def _begin_anew(self, at: float, step: float) -> None:
        """Behind a gap of so many seconds, or a jump back."""
        self._column += max(1, int(step * self._sfreq / self._per_column))
        self._held, self._since = [], at
        self._window, self._n_new = [], 0

    def _follow(self, signal: NDArray[np.float64]) -> list[Message]:
        self._held.append(signal)
        self._window.append(signal)
        self._n_new += signal.shape[1]
        new = self._signal()
        if self._n_new >= _EVERY_S * self._sfreq:
            self._n_new = 0
            new.append(self._quality())
        return new

    def _signal(self, *, everything: bool = False) -> list[Message]:
        """The columns that are whole, where there are enough of them to be worth a message."""
        held = sum(part.shape[1] for part in self._held)
        n = held // self._per_column
        if n == 0 or not (everything or n >= _EVERY_COLUMNS):
            return []
        signal = np.concatenate(self._held, axis=1)
        whole, self._held = signal[:, : n * self._per_column], [signal[:, n * self._per_column :]]
        shown = (whole * self._scales).reshape(len(signal), n, self._per_column)
        column = self._per_column / self._sfreq
        message = Signal(
            first=self._column,
            at=0.0 if self._since is None else self._since,
            column=column,
            lows=shown.min(axis=2).astype(np.float32),
            highs=shown.max(axis=2).astype(np.float32),
        )
        self._column += n
        self._since = message.at + n * column
        return [message]

    def _quality(self) -> Message:
        window = np.concatenate(self._window, axis=1)[:, -round(_WINDOW_S * self._sfreq) :]
        self._window = [window]
        found = assess(window, self._types, self._sfreq, self._line)
        return Quality(
            window=window.shape[1] / self._sfreq,
            faults=found.faults,
            deviations=tuple(map(float, found.deviations * self._scales[:, 0])),
            hum=tuple(None if np.isnan(share) else float(share) for share in found.hum),
        )
