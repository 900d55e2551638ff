"""Whether an epoch whose samples are there can be trusted: filters, jitter, rate, clocks, its own values, its scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...runtime.signal.chain import Chain
from ...runtime.signal.stream import Outcome
from ..records import MARKERS, SIGNAL
from .clocks import Clock
from .dejitter import MOST_OFF
from .events import REFUSED, REJECTED
from .placing import Placed
from .scale import ScaleCheck


class Judge:
    """Judges epochs.

    Parameters
    ----------
    chain
        Opened for the signal.
    clocks
        Of signal and markers.
    scale
        Of the training data; None where it is not known.
    """

    def __init__(self, chain: Chain, clocks: Mapping[str, Clock], scale: ScaleCheck | None) -> None:
        self._clocks, self._scale = clocks, scale
        self._warm_up, self._sfreq = chain.warm_up, chain.plan.input.sfreq

    def verdict(self, placed: Placed, outcome: Outcome) -> tuple[str, str | None]:
        """State and reason of an epoch; the reason is None where it is good."""
        segment, sample = placed.segment, placed.sample
        if outcome.in_warm_up:
            where = "the signal's start" if segment.before is None else "a break in the signal"
            return REFUSED, (
                f"the epoch begins {segment.begins(sample):.3g} s after {where}, and the filters settle in "
                f"{self._warm_up:.3g} s"
            )
        if segment.in_learning(sample):
            return REFUSED, (
                f"the epoch begins {segment.begins(sample):.3g} s after the signal's start, and the jitter of its "
                f"stamps is measured for {segment.learns * segment.period:.3g} s"
            )
        rate = segment.rate(sample)
        if rate is not None and abs(rate / self._sfreq - 1) > MOST_OFF:
            return REFUSED, f"the signal had {rate:.5g} samples a second in the epoch, and declares {self._sfreq:g}"
        if self.is_doubtful(placed):
            return REFUSED, "a clock jumped between two measurements of its offset around the marker"
        if outcome.rejected:
            return REJECTED, outcome.reason
        if self._scale is not None:
            return REJECTED, self._scale.reason(np.asarray(outcome.data, np.float64))
        return REJECTED, None

    def is_doubtful(self, placed: Placed) -> bool:
        """Whether it was placed by an offset that has jumped since, or came while its clock jumped."""
        signal, markers = self._clocks[SIGNAL], self._clocks[MARKERS]
        return (
            signal.has_jumped(placed.signal, placed.local)
            or markers.has_jumped(placed.own, placed.local)
            or markers.jumped_around(placed.marker.arrived)
        )
