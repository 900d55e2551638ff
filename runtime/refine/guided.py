"""The structural gradient inside the sampler: at each denoising step, the picture that is emerging is pulled to place.

With x the latent before a step, e the guided noise in it and x0 = (x - s e) / sqrt(keep), s = sqrt(1 - keep), the clean
estimate, L the structural loss (eq. 5) of the picture of x0, and g = dL/dx, through decoder, CLIP and UNet,

    x_next = DDIM(x, e) - step_size * s * sqrt(d) * g / |g|

for each trial, d the number of the latent's values: s * sqrt(d) is the length of the noise that is left in x, so that
`step_size` has no unit and neither the loss's scale nor the picture's size matter.

After FreeDoM (Yu et al. 2023) and universal guidance (Bansal et al. 2023), which step by one scale times the gradient,
and NeuralDiffuser (Li et al. 2024), which brought that to decoded CLIP features; without the UNet's Jacobian it is the
gradient of MPGD (He et al. 2024). The normalised step is DSG's (Yang et al. 2024) up to its mixing with fresh noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..generators.base import A, Sampler
from ..generators.ddim import ddim_update
from .arrays import as_float64, unit
from .base import Loss, Trajectory


def guided_pass(
    sampler: Sampler[A],
    x: A,
    loss: Loss,
    *,
    step_size: float,
    n_guided: int,
    jacobian: bool = True,
    on_step: Callable[[int, A | None], None] | None = None,
) -> Trajectory[A]:
    """Sample n trials under guidance. Rows never mix.

    Parameters
    ----------
    sampler
        Of these trials.
    x : (n, 4, h, w)
        The latent before the first step.
    loss
        See :data:`.base.Loss`.
    step_size : float
        In units of the noise that is left; 0 samples without guidance.
    n_guided : int
        Guided are the first so many steps.
    jacobian : bool
        False takes the gradient at x0 alone, without the way back through the UNet.
    on_step : callable, optional
        Called after step k = 1 ... n_steps with k and the picture of the clean estimate, None where it is not known.

    Returns
    -------
    Trajectory
        Its curve is (n_guided + 1, n), or (1, n) where `step_size` is 0: the clean estimate's loss at each guided step,
        then the final picture's.
    """
    curve, n_values = [], int(np.prod(x.shape[1:]))  # type: ignore[attr-defined]
    for k, (_, keep, keep_next) in enumerate(sampler.schedule):
        step: Any = 0.0
        image = None
        if k < n_guided and step_size > 0:
            clean, noise, pull_back = sampler.linearise(x, k) if jacobian else (*sampler.predict(x, k), _as_it_is)
            value, at_clean, image = loss(clean)
            gradient = pull_back(at_clean)
            step = step_size * ((1 - keep) * n_values) ** 0.5 * unit(gradient)
            curve.append(value)
        else:
            _, noise = sampler.predict(x, k)
        x = ddim_update(x, noise, keep, keep_next) - step
        if on_step is not None:
            on_step(k + 1, image)
    value, _, image = loss(x)
    return Trajectory(x, image, np.stack([as_float64(one) for one in (*curve, value)]))


def _as_it_is(gradient: A) -> A:
    """Where the UNet counts as constant, x0 is x over a number, which the step's unit length takes out."""
    return gradient
