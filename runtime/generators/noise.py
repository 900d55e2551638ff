"""Each trial's own Gaussian noise: the same whatever batch, row or file the trial is in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError


def trial_noise(
    seed: int, trial_ids: Sequence[str], latent_shape: tuple[int, ...], candidate: int = 0
) -> NDArray[np.float32]:
    """Draw the start noise of stage 1 and 2, from one random stream per trial.

    A stream's seed is the SHA-256 of the text ``seed/candidate/iteration/id`` in UTF-8, as a big-endian number; the
    iteration is 0 here.

    Parameters
    ----------
    seed : int
        Of the run, not negative.
    trial_ids : sequence of str
        A trial's id decides its noise; see :mod:`~minddiffuser.runtime.data.trial_ids`.
    latent_shape : tuple of int
        Of one latent, (4, h, w).
    candidate : int
        Which of several starts, not negative.

    Returns
    -------
    float32 array of shape (n, 4, h, w)

    Raises
    ------
    InputError
        An id is no text.
    """
    return _draw(seed, trial_ids, latent_shape, candidate, 0)


def fresh_noise(
    seed: int, trial_ids: Sequence[str], latent_shape: tuple[int, ...], candidate: int = 0
) -> Callable[[int], NDArray[np.float32]]:
    """Give a source of new noise for every iteration, as the reference code draws it (preset ``reference``).

    Iteration 0 is :func:`trial_noise`, so that stage 2 begins at the picture of stage 1. Every call with the same
    iteration gives the same noise: a resumed run replays.
    """
    return lambda iteration: _draw(seed, trial_ids, latent_shape, candidate, iteration)


def _draw(
    seed: int, trial_ids: Sequence[str], shape: tuple[int, ...], candidate: int, iteration: int
) -> NDArray[np.float32]:
    if isinstance(trial_ids, str) or not all(isinstance(name, str) for name in trial_ids):
        raise InputError(
            f"the trial ids are {trial_ids!r:.60}, expected texts, one per trial: of rows, give [str(row) for row in …]"
        )
    noise = np.empty((len(trial_ids), *shape), np.float32)
    for row, name in zip(noise, trial_ids, strict=True):
        digest = hashlib.sha256(f"{seed}/{candidate}/{iteration}/{name}".encode()).digest()
        row[...] = np.random.default_rng(int.from_bytes(digest)).standard_normal(shape, dtype=np.float32)
    return noise
