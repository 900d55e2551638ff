"""The two controls of every claim about stage 2: a floor with shuffled targets, a ceiling with true features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import InputError

CONTROLS: dict[str, tuple[str, ...]] = {
    "none": (),
    "shuffled": ("shuffled",),
    "oracle": ("oracle",),
    "both": ("shuffled", "oracle"),
}


def derangement(trials: Sequence[int], seed: int) -> dict[int, int]:
    """Give every trial another trial's target, never its own, each target once.

    The trials are put in a random order and each takes the next one's target: one cycle, hence no fixed point. It
    depends on the whole run's trials and the seed alone, so a resumed run shuffles as before.

    Raises
    ------
    InputError
        There are fewer than two trials.
    """
    if len(trials) < 2:
        raise InputError(
            f"shuffled targets need at least 2 good trials, there are {len(trials)}: leave the control out"
        )
    order = np.random.default_rng([seed, len(trials)]).permutation(np.sort(np.asarray(trials))).tolist()
    return dict(zip(order, order[1:] + order[:1], strict=True))
