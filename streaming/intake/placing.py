"""Where a marker belongs in the signal, by the clocks as they were measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..records import MARKERS, SIGNAL, Marker
from .clocks import Clock, Measured
from .events import REFUSED, REJECTED
from .markers import Waits
from .segments import Segment
from .settings import IntakeSettings
from .splitting import Splitter

# A marker this many seconds ahead of its arrival is on a clock that was never compared with this one.
_AHEAD = 60.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A marker whose sample is known and whose epoch is waited for."""

    marker: Marker
    local: float
    signal: Measured
    own: Measured
    segment: Segment
    sample: int

    @property
    def uncertainty(self) -> float:
        """Of both clock offsets together."""
        return self.signal.uncertainty + self.own.uncertainty


class Placer:
    """Finds the samples of markers.

    Parameters
    ----------
    splitter
        With the stretches.
    clocks
        Of signal and markers.
    settings
        Of the session.
    reach
        Seconds from an event to the last sample that its epoch needs.

    Attributes
    ----------
    set_back
        When the last samples came before, and the first after, the signal's clock was set back, with which the markers'
        may have been.
    """

    def __init__(
        self, splitter: Splitter, clocks: Mapping[str, Clock], settings: IntakeSettings, *, reach: float
    ) -> None:
        self._splitter, self._clocks, self._settings, self._reach = splitter, clocks, settings, reach
        self.set_back = (np.inf, np.inf)

    def locate(self, waits: Waits) -> Placed | tuple[str, str] | str | None:
        """Where a marker belongs; or its state and the reason; or the clock that is not known; None to wait."""
        marker = waits.marker
        markers = self._clocks[MARKERS]
        own = markers.of_stamp(marker.stamp, waits.trusted_after, markers.until(marker.arrived))
        last = markers.newest
        before, after = self.set_back
        if own is None or last is None or (marker.arrived >= before and last.at <= after):
            return MARKERS
        local = marker.stamp + own.offset
        if local > marker.arrived + _AHEAD:
            return REFUSED, (
                f"the marker's time lies {local - marker.arrived:.4g} s after its arrival: its clock was not compared "
                "with this computer's"
            )
        for index, segment in enumerate(self._splitter.segments):
            # What was measured of a clock after it had jumped says nothing of the stamps before.
            trusted = (later.trusted_after for later in self._splitter.segments[index + 1 :])
            until = next((at for at in trusted if at > segment.trusted_after), np.inf)
            clock = self._clocks[SIGNAL].at(local, segment.trusted_after, until)
            if clock is None:
                # One sample out of order needs no clock of its own: it has no epoch.
                if until < np.inf or (segment.after is not None and segment.is_short):
                    continue
                return SIGNAL
            time, half = local - clock.offset, segment.period / 2
            if time < segment.timeline.first - half:
                return self._between(index, segment)
            newest = segment.timeline.newest
            if time <= newest or (segment.after is not None and time <= newest + half):
                sample = segment.timeline.nearest(time)
                # The newest sample that had come may be of a clock before this one, or behind it.
                is_comparable = segment.trusted_after <= waits.newest_came < until
                is_late = is_comparable and waits.newest - time - self._reach > self._settings.late
                if sample is None or is_late:
                    return REFUSED, self.too_late()
                return Placed(marker=marker, local=local, signal=clock, own=own, segment=segment, sample=sample)
            if segment.after is None:
                return None
        return None

    def _between(self, index: int, segment: Segment) -> tuple[str, str]:
        """State and reason of a marker before a stretch and behind the one before."""
        if index == 0 and self._splitter.forgotten:
            return REFUSED, self.too_late()
        if segment.before is None:
            return REFUSED, "the marker came before the signal's first sample"
        state = REJECTED if segment.before.nan else REFUSED
        return state, f"the marker falls into a break in the signal: {segment.before.text}"

    def too_late(self) -> str:
        """Why a marker has no epoch whose samples are gone."""
        return f"the marker came more than {self._settings.late:g} s after its epoch: its samples are gone"
