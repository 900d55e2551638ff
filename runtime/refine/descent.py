"""Clean latents go down a loss by themselves, with no sampler in between: before a guided pass, and after it.

Step i of I, counted from 0, is

    latent <- latent - step_size * (1 - i / I) * sqrt(d) * g / |g|

for each trial, g the loss's gradient at the latent, d the number of the latent's values and sqrt(d) its length at unit
scale: as in :mod:`.guided`, neither the loss's scale nor the picture's size matters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import as_float64, assign, copied, on_host, smoothed, unit
from .base import Loss, Trajectory

OnDescent = Callable[[int, Any], None]
"""Called with i = 1 ... steps and the pictures before that step."""


def descended(
    latent: NDArray[np.float32], loss: Loss, *, steps: int, step_size: float, on_step: OnDescent | None = None
) -> NDArray[np.float32]:
    """Move the decoded latents before they are noised.

    What comes out has much of the structure and little meaning: its picture's shallow features are right, and it is a
    picture of nothing. Sampling from it, with noise that leaves the structure, brings the meaning back.

    Parameters
    ----------
    latent : (n, 4, h, w)
    loss
        See :data:`.base.Loss`.
    steps : int
    step_size : float
        Of the first step, in units of the latent's scale.
    on_step : callable, optional
        See `OnDescent`.
    """
    for i in range(steps):
        _, gradient, image = loss(latent)
        latent = latent - on_host(_step(gradient, i, steps, step_size))
        if on_step is not None:
            on_step(i + 1, image)
    return latent


def finished(
    latent: Any,
    loss: Loss,
    *,
    steps: int,
    step_size: float,
    smoothing: float = 0.0,
    on_step: OnDescent | None = None,
) -> Trajectory[Any]:
    """Move sampled latents, and keep for each trial the iterate with the lowest loss.

    Sampling ends with steps that nothing guides; what they moved away from the target is brought back here, in a
    picture that has its meaning already. g is blurred before it is brought to length 1: its fine part would lower the
    loss by patterns that mean nothing, and what is left of it moves colours and outlines.

    Parameters
    ----------
    latent : (n, 4, h, w)
        Of whichever kind the loss's gradient is.
    loss, steps, step_size, on_step
        As of :func:`descended`.
    smoothing : float
        Standard deviation of the blur, in pixels of the latent; 0 leaves g as it is.

    Returns
    -------
    Trajectory
        The kept latents and pictures; its curve, (steps + 1, n), holds the loss of every iterate from `latent` on.
    """
    curve: list[NDArray[np.float64]] = []
    for i in range(steps + 1):
        value, gradient, image = loss(latent)
        values = as_float64(value)
        if not curve:
            kept, picture, lowest = copied(latent), copied(image), values.copy()
        lower = values < lowest  # NaN is not
        assign(kept, latent, lower)
        assign(picture, image, lower)
        lowest[lower] = values[lower]
        curve.append(values)
        if i < steps:
            latent = latent - _step(smoothed(gradient, smoothing), i, steps, step_size)
            if on_step is not None:
                on_step(i + 1, image)
    return Trajectory(kept, picture, np.stack(curve))


def _step(gradient: Any, i: int, steps: int, step_size: float) -> Any:
    length = step_size * (1 - i / steps) * float(np.prod(gradient.shape[1:])) ** 0.5
    return length * unit(gradient)
