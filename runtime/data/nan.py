"""Which trials, and which voxels or channels, hold NaN or infinite responses, and what costs less to leave out.

The place of a response is what the first axis of a trial counts: a voxel of fMRI, a channel of EEG and MEG. A channel
has a hole in a trial where any of its samples is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# Values that are looked at together, so that mapped responses are never in memory as a whole.
_CHUNK_VALUES = 1 << 23
_MOST_NAMED = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class Holes:
    """Where responses are NaN or infinite.

    Attributes
    ----------
    n_trials, n_places
        Of the responses.
    place
        What a place is, in the singular: "voxel" or "channel".
    trials
        Trials with a hole.
    broken
        Those of them in which more than half of the places are holes: leaving places out does not save them.
    places
        Places that are holes in a trial that is not broken.
    empty
        Places that are holes in every trial.
    """

    n_trials: int
    n_places: int
    place: str
    trials: NDArray[np.intp]
    broken: NDArray[np.intp]
    places: NDArray[np.intp]
    empty: NDArray[np.intp]

    @property
    def places_cost_less(self) -> bool:
        """Whether leaving out the places (and the broken trials) loses a smaller share of the data than the trials."""
        by_places = len(self.places) / self.n_places + len(self.broken) / self.n_trials
        return len(self.broken) < len(self.trials) and by_places < len(self.trials) / self.n_trials

    def cure(self) -> str:
        """What to leave out, cheapest first, with numbers."""
        trials = numbers("trial", self.trials)
        if not self.places_cost_less:
            return f"leave {trials} out"
        also = f" and {numbers('trial', self.broken)}" if len(self.broken) else ""
        places = numbers(self.place, self.places)
        return f"leave {places}{also} out of both splits and keep the rest, or leave {trials} out"


def find_holes(responses: Array, place: str = "voxel") -> Holes | None:
    """Look for NaN and infinite values.

    Parameters
    ----------
    responses
        (n_trials, n_places, …) float, mapped or in memory.
    place
        What a place is: "voxel" or "channel".

    Returns
    -------
    Holes, or None where every value is finite.
    """
    n_trials, n_places = responses.shape[:2]
    per_trial = np.zeros(n_trials, np.int64)
    per_place, spared = np.zeros(n_places, np.int64), np.zeros(n_places, np.int64)
    for part in chunks(responses.shape):
        finite = np.isfinite(responses[part])
        if finite.all():
            continue
        bad = np.asarray(~finite.reshape(*finite.shape[:2], -1).all(axis=2))
        per_trial[part] = bad.sum(axis=1)
        per_place += bad.sum(axis=0)
        spared += bad[per_trial[part] * 2 <= n_places].sum(axis=0)
    if not per_trial.any():
        return None
    return Holes(
        n_trials=n_trials,
        n_places=n_places,
        place=place,
        trials=np.flatnonzero(per_trial),
        broken=np.flatnonzero(per_trial * 2 > n_places),
        places=np.flatnonzero(spared),
        empty=np.flatnonzero(per_place == n_trials),
    )


def chunks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices over the first axis that together cover it, each of some million values."""
    n_rows, rows = shape[0], max(1, _CHUNK_VALUES // max(1, math.prod(shape[1:])))
    return (slice(start, min(start + rows, n_rows)) for start in range(0, n_rows, rows))


def numbers(what: str, indices: Sequence[int] | NDArray[np.intp]) -> str:
    """A count with its first numbers: "3 voxels (12, 57, 1033)", or "voxel 12" for a single one."""
    if len(indices) == 1:
        return f"{what} {indices[0]}"
    some = ", ".join(str(index) for index in indices[:_MOST_NAMED])
    return f"{len(indices)} {what}s ({some}{', …' if len(indices) > _MOST_NAMED else ''})"
