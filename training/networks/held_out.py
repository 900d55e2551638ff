"""Which trials are held out to decide when training stops: whole pictures, never some repetitions of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import InputError

_LEAST = 2


def hold_out(pictures: NDArray[np.integer[Any]], share: float, seed: int) -> NDArray[np.bool_]:
    """Which trials to hold out, (n_trials,): all those of a drawn share of the pictures, two pictures or more.

    Raises
    ------
    InputError
        There are fewer than four pictures, so that two would not be left to fit to.
    """
    shown = np.unique(pictures)
    if len(shown) < 2 * _LEAST:
        raise InputError(
            f"{len(shown)} training pictures are too few for a network, which holds out two or more: give 4"
        )
    n_held_out = max(_LEAST, round(share * len(shown)))
    drawn = np.random.default_rng(seed).permutation(shown)[: min(n_held_out, len(shown) - _LEAST)]
    return np.isin(pictures, drawn)
