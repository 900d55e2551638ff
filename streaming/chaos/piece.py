"""What faults work on: an item of the source, with what it truly is beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..records import Item, Marker, Samples

ALTERED = -1
"""The number of a sample whose values are no longer those that the source gave."""

Which = slice | NDArray[np.int64] | NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """One item on its way through the faults.

    Attributes
    ----------
    item
        As it will be delivered.
    numbers
        Of samples: (n,) int64, which sample of the source each is, from 0; `ALTERED` where its values were changed.
        Of a marker: (1,), its ordinal at the source; `ALTERED` for one that a fault invented.
    true
        Of samples and markers: their stamps on the source's own clock, (n,) float64, one for a marker.
    """

    item: Item
    numbers: NDArray[np.int64] | None = None
    true: NDArray[np.float64] | None = None

    @property
    def samples(self) -> Samples | None:
        """The item, if it is of samples."""
        return self.item if isinstance(self.item, Samples) else None

    @property
    def marker(self) -> Marker | None:
        """The item, if it is a marker."""
        return self.item if isinstance(self.item, Marker) else None

    @property
    def arrived(self) -> float | None:
        """When it arrived, if it is of samples or a marker."""
        return self.item.arrived if isinstance(self.item, Samples | Marker) else None

    def part(self, which: Which) -> Piece:
        """Some of the samples, in that order."""
        assert isinstance(self.item, Samples)
        assert self.numbers is not None
        assert self.true is not None
        item = replace(self.item, stamps=self.item.stamps[which], data=self.item.data[:, which])
        return replace(self, item=item, numbers=self.numbers[which], true=self.true[which])

    def arriving(self, at: float) -> Piece:
        """The same, arriving at another local time; what has no time of arrival stays as it is."""
        if isinstance(self.item, Samples | Marker):
            return replace(self, item=replace(self.item, arrived=max(at, self.item.arrived)))
        return self
