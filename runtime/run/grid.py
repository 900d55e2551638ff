"""The fixed grid of batches: which trials are computed together is decided by the input alone, never by a resume."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import InputError


def batch_grid(n_trials: int, batch_size: int, skipped: Collection[int] = ()) -> list[tuple[int, ...]]:
    """Batch k holds the good trials among ``[k * batch_size, (k + 1) * batch_size)``; it may be empty.

    A network's numbers can depend on the size of its batch in the last bit, so a killed run must compute the very
    batches that an unbroken one computes.

    Raises
    ------
    InputError
        `batch_size` is below 1.
    """
    if batch_size < 1:
        raise InputError(f"the batch size is {batch_size}: give 1 or more trials")
    starts = range(0, n_trials, batch_size)
    left_out = frozenset(skipped)
    return [tuple(t for t in range(s, min(s + batch_size, n_trials)) if t not in left_out) for s in starts]
