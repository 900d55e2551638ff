"""Which voxels or trials hold NaN or infinite responses, and which of them costs less to leave out."""

from __future__ import annotations

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
    n_trials, n_voxels
        Of the responses.
    trials
        Trials with a hole.
    broken
        Those of them in which more than half of the voxels are holes: leaving voxels out does not save them.
    voxels
        Voxels that are holes in a trial that is not broken.
    empty
        Voxels that are holes in every trial.
    """

    n_trials: int
    n_voxels: int
    trials: NDArray[np.intp]
    broken: NDArray[np.intp]
    voxels: NDArray[np.intp]
    empty: NDArray[np.intp]

    @property
    def voxels_cost_less(self) -> bool:
        """Whether leaving out the voxels (and the broken trials) loses a smaller share of the data than the trials."""
        by_voxels = len(self.voxels) / self.n_voxels + len(self.broken) / self.n_trials
        return len(self.broken) < len(self.trials) and by_voxels < len(self.trials) / self.n_trials

    def cure(self) -> str:
        """What to leave out, cheapest first, with numbers."""
        trials = numbers("trial", self.trials)
        if not self.voxels_cost_less:
            return f"leave {trials} out"
        also = f" and {numbers('trial', self.broken)}" if len(self.broken) else ""
        return (
            f"leave {numbers('voxel', self.voxels)}{also} out of both splits and keep the rest, or leave {trials} out"
        )


def find_holes(responses: Array) -> Holes | None:
    """Look for NaN and infinite values.

    Parameters
    ----------
    responses
        (n_trials, n_voxels) float, mapped or in memory.

    Returns
    -------
    Holes, or None where every value is finite.
    """
    n_trials, n_voxels = responses.shape
    per_trial = np.zeros(n_trials, np.int64)
    per_voxel, spared = np.zeros(n_voxels, np.int64), np.zeros(n_voxels, np.int64)
    for part in chunks(n_trials, n_voxels):
        bad = ~np.isfinite(responses[part])
        if not bad.any():
            continue
        per_trial[part] = bad.sum(axis=1)
        per_voxel += bad.sum(axis=0)
        spared += bad[per_trial[part] * 2 <= n_voxels].sum(axis=0)
    if not per_trial.any():
        return None
    return Holes(
        n_trials=n_trials,
        n_voxels=n_voxels,
        trials=np.flatnonzero(per_trial),
        broken=np.flatnonzero(per_trial * 2 > n_voxels),
        voxels=np.flatnonzero(spared),
        empty=np.flatnonzero(per_voxel == n_trials),
    )


def chunks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Slices over rows that together cover them, each of some million values."""
    rows = max(1, _CHUNK_VALUES // max(1, n_columns))
    return (slice(start, min(start + rows, n_rows)) for start in range(0, n_rows, rows))


def numbers(what: str, indices: Sequence[int] | NDArray[np.intp]) -> str:
    """A count with its first numbers: "3 voxels (12, 57, 1033)", or "voxel 12" for a single one."""
    if len(indices) == 1:
        return f"{what} {indices[0]}"
    some = ", ".join(str(index) for index in indices[:_MOST_NAMED])
    return f"{len(indices)} {what}s ({some}{', …' if len(indices) > _MOST_NAMED else ''})"
