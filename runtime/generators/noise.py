"""Each trial's own Gaussian noise: the same whatever batch the trial is in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


def trial_noise(seed: int, trials: Sequence[int], latent_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw the start noise of stage 1 and 2, from one random stream per trial.

    Parameters
    ----------
    seed : int
        Of the run, not negative.
    trials : sequence of int
        Trial numbers within the responses file, not negative.
    latent_shape : tuple of int
        Of one latent, (4, h, w).

    Returns
    -------
    float32 array of shape (n, 4, h, w)
    """
    return _rows([np.random.default_rng([seed, trial]) for trial in trials], latent_shape)


def fresh_noise(
    seed: int, trials: Sequence[int], latent_shape: tuple[int, ...]
) -> Callable[[int], NDArray[np.float32]]:
    """Give a source of new noise for every iteration, as the reference code draws it (preset ``reference``).

    Iteration 0 is :func:`trial_noise`, so that stage 2 begins at the picture of stage 1. Every call with the same
    iteration gives the same noise: a resumed run replays.
    """

    def at(iteration: int) -> NDArray[np.float32]:
        if iteration == 0:
            return trial_noise(seed, trials, latent_shape)
        return _rows([np.random.default_rng([seed, trial, iteration]) for trial in trials], latent_shape)

    return at


def _rows(streams: Sequence[np.random.Generator], shape: tuple[int, ...]) -> NDArray[np.float32]:
    noise = np.empty((len(streams), *shape), np.float32)
    for row, stream in zip(noise, streams, strict=True):
        row[...] = stream.standard_normal(shape, dtype=np.float32)
    return noise
