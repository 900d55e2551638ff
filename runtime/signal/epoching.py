"""Epochs: what becomes of each event of a recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .stage import Array, EpochStep, Refused

TOO_EARLY = "the epoch starts before the recording"
TOO_LATE = "the recording ended before the epoch did"


@dataclass(frozen=True, kw_only=True, eq=False)
class Epochs:
    """The epochs of a recording, in the order of its events.

    Attributes
    ----------
    data
        (n_kept, n_channels, n_times) float32.
    kept
        (n_kept,) int64, which event each belongs to, counted from 0.
    refused
        Event to the reason why it has no epoch; details of the one epoch stand behind ": ". Every event is in one of
        the two.
    in_warm_up
        (n_kept,) bool, whether a sample lies where the filters have not settled.
    """

    data: NDArray[np.float32]
    kept: NDArray[np.int64]
    refused: Mapping[int, str]
    in_warm_up: NDArray[np.bool_]


def finished(
    samples: Array, steps: Sequence[EpochStep], dtype: type[Any] = np.float32
) -> tuple[NDArray[Any] | None, str | None]:
    """One epoch through all steps.

    Parameters
    ----------
    samples
        (n_channels, n_times) float64 of the continuous signal; left as they are.
    steps
        In their order.
    dtype
        np.float32, or np.float64 as the steps compute it.

    Returns
    -------
    tuple
        The epoch, in that type, and None; or None and the reason why it is refused.
    """
    if not steps:  # the large copy to float64 would be in vain
        return np.array(samples, dtype, order="C"), None
    # A copy in one order of memory: numpy sums an axis in an order that depends on the layout.
    epoch = np.array(samples, np.float64, order="C")
    try:
        for step in steps:
            epoch = step.apply(epoch)
    except Refused as refusal:
        return None, str(refusal)
    return epoch.astype(dtype, order="C"), None
