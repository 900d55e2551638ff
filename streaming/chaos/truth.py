"""What was truly delivered, kept while faults are injected: what the outcome is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class TrueMarker:
    """A marker's stamp on the source's own clock, and its ordinal there; None for one that a fault invented."""

    stamp: float
    ordinal: int | None


@dataclass(kw_only=True, eq=False)
class Truth:
    """The delivered samples by their numbers at the source, and what every delivered marker truly is.

    Attributes
    ----------
    numbers
        Of each delivery, (n,) int64: which sample of the source, or -1 where its values were altered.
    markers
        Ordinal as delivered to what the marker truly is.
    """

    numbers: list[NDArray[np.int64]] = field(default_factory=list)
    markers: dict[int, TrueMarker] = field(default_factory=dict)

    @property
    def n_delivered(self) -> int:
        """Samples, counted as often as they came."""
        return sum(len(numbers) for numbers in self.numbers)
