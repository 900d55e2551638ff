"""What was truly delivered, kept while faults are injected: what the outcome is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(kw_only=True, eq=False)
class Truth:
    """The delivered samples by their numbers at the source, and the true stamp of every delivered marker.

    Attributes
    ----------
    numbers
        Of each delivery, (n,) int64: which sample of the source, or -1 where its values were altered.
    markers
        Ordinal as delivered to its stamp on the source's own clock.
    breaks
        Numbers of samples before which the source or its clock changed, so that a new stretch may begin there.
    """

    numbers: list[NDArray[np.int64]] = field(default_factory=list)
    markers: dict[int, float] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)

    @property
    def n_delivered(self) -> int:
        """Samples, counted as often as they came."""
        return sum(len(numbers) for numbers in self.numbers)
