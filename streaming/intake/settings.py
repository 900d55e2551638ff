"""What a session asks of its intake."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class IntakeSettings:
    """Times in seconds.

    Attributes
    ----------
    events
        Patterns of the markers that are events, with * and ? as in file names, such as "stim/*"; none for all markers.
    gap
        By how much a sample's stamp may be off the expected one before the signal counts as interrupted. None: by
        three quarters of a sample, or more where the stamps of the first `learn` seconds jitter.
    learn
        How long the jitter of a source's stamps is measured, where `gap` is None; epochs that begin in it are refused.
    late
        How long after its epoch's end a marker may come.
    max_uncertainty
        Of the clock offsets of signal and markers together: a marker is refused where it is above.
    most_waiting
        Markers that may wait for their samples; further ones are refused.
    unit
        Of every channel, such as "uV", where the source declares none or a wrong one; None: as declared.
    """

    events: tuple[str, ...] = ()
    gap: float | None = None
    learn: float = 2.0
    late: float = 10.0
    max_uncertainty: float = 0.005
    most_waiting: int = 10_000
    unit: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.events, str) or not all(isinstance(text, str) and text for text in self.events):
            raise InputError(f"events are {self.events!r}: give patterns of markers, such as ('stim/*',)")
        if self.gap is not None and not (math.isfinite(self.gap) and self.gap > 0):
            raise InputError(f"gap is {self.gap!r}: give seconds above 0, or None")
        for name in ("learn", "late", "max_uncertainty"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)) or (name == "late" and value == 0):
                raise InputError(f"{name} is {value!r}: give seconds{' above 0' if name == 'late' else ', 0 or more'}")
        if self.most_waiting < 1:
            raise InputError(f"most_waiting is {self.most_waiting!r}: give a number of markers from 1")
