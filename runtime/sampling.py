"""The sampler's table as every engine takes it: what the network is told, and two coefficients per step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .schedule import Schedule


def step_table(schedule: Schedule) -> NDArray[np.float32]:
    """Rows (timestep, latent_scale, noise_scale) of a DDIM run, first step first.

    ``next = latent_scale * latent + noise_scale * noise`` is :func:`~minddiffuser.runtime.schedule.ddim_update` with
    its terms collected: ``latent_scale = sqrt(keep_next / keep)`` and ``noise_scale = sqrt(1 - keep_next) -
    latent_scale * sqrt(1 - keep)``, in float64 and rounded once.

    Returns
    -------
    float32 array of shape (n_reverse, 3)
    """
    keep, keep_next = schedule.keep, schedule.keep_next
    latent_scale = np.sqrt(keep_next / keep)
    noise_scale = np.sqrt(1 - keep_next) - latent_scale * np.sqrt(1 - keep)
    return np.stack([schedule.timesteps, latent_scale, noise_scale], axis=1).astype(np.float32)
