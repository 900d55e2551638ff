"""The table of DDIM coefficients, computed once in float64 and shared by every backend, and its two equations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, ShapeError

N_STEPS = 50
N_NOISE = 37
N_REVERSE = 35


@dataclass(frozen=True, eq=False)
class Schedule:
    """Coefficients of one deterministic DDIM run, first step first.

    Iterating gives ``(timestep, keep, keep_next)`` as Python numbers, so that an update never changes an array's dtype.

    Parameters
    ----------
    timesteps : int64 array of shape (n_reverse,)
        What the network is told, descending.
    keep : float64 array of shape (n_reverse,)
        Share of the signal's variance left at each timestep ("alpha bar").
    keep_next : float64 array of shape (n_reverse,)
        The same at the timestep that follows: ``keep_next[i] == keep[i + 1]``.
    noise_keep : float
        Alpha bar to which the start latent is noised (eq. 2 and 3 of the paper).
    """

    timesteps: NDArray[np.int64]
    keep: NDArray[np.float64]
    keep_next: NDArray[np.float64]
    noise_keep: float

    def __len__(self) -> int:
        return len(self.timesteps)

    def __iter__(self) -> Iterator[tuple[int, float, float]]:
        return iter(zip(self.timesteps.tolist(), self.keep.tolist(), self.keep_next.tolist(), strict=True))


def ddim_schedule(
    alphas_cumprod: NDArray[np.floating[Any]],
    *,
    n_steps: int = N_STEPS,
    n_noise: int | None = N_NOISE,
    n_reverse: int = N_REVERSE,
    steps_offset: int = 1,
    set_alpha_to_one: bool = False,
) -> Schedule:
    """Compute the coefficients of a DDIM run (Song et al. 2021, eq. 12 with sigma = 0) that starts part of the way.

    The grid is diffusers' "leading" one: step ``i`` of ``n_steps`` is timestep ``i * (n_train // n_steps) +
    steps_offset``, for Stable Diffusion 1.4 1, 21, ..., 981. `n_noise` is a step of this grid, counted from 0;
    `n_reverse` is a number of steps, the last of which is step 0. They are independent, because the published
    setting does not match them: the paper's 37 forward and 35 reverse steps are, in the reference code, a latent
    noised to step 37 (timestep 741) and denoised from step 34 (timestep 681) as if it were that much less noisy.
    The default is that published setting; ``n_noise=None`` noises to exactly the step where denoising begins.

    Parameters
    ----------
    alphas_cumprod : float array of shape (n_train,)
        Alpha bar of every training timestep, falling, within (0, 1].
    n_steps : int
        Steps of a full run over the grid.
    n_noise : int or None
        Step of the grid to which the start latent is noised; None for ``n_reverse - 1``.
    n_reverse : int
        Denoising steps.
    steps_offset, set_alpha_to_one : int, bool
        As in the model folder's scheduler config. Alpha bar after the last step is 1 or ``alphas_cumprod[0]``.

    Returns
    -------
    Schedule

    Raises
    ------
    ShapeError
        `alphas_cumprod` is not one-dimensional.
    InputError
        It does not fall within (0, 1], or a number of steps lies outside the grid.
    """
    alphas = _checked(alphas_cumprod)
    if not 1 <= n_steps <= len(alphas):
        raise InputError(
            f"n_steps is {n_steps}: choose 1 to {len(alphas)}, the timesteps that the model was trained on"
        )
    if not 1 <= n_reverse <= n_steps:
        raise InputError(f"n_reverse is {n_reverse}: choose 1 to n_steps = {n_steps}")
    start = n_reverse - 1 if n_noise is None else n_noise
    if not 0 <= start < n_steps:
        raise InputError(f"n_noise is {n_noise}: choose a step from 0 to n_steps - 1 = {n_steps - 1}")
    spacing = len(alphas) // n_steps
    grid = np.arange(n_steps, dtype=np.int64) * spacing + steps_offset
    if not 0 <= steps_offset or grid[max(start, n_reverse - 1)] >= len(alphas):
        raise InputError(
            f"steps_offset {steps_offset} moves the grid outside the {len(alphas)} trained timesteps: "
            "take n_steps and steps_offset from the model folder's scheduler config"
        )
    timesteps = grid[:n_reverse][::-1].copy()
    before = timesteps - spacing  # below zero once, after the last step
    last = 1.0 if set_alpha_to_one else float(alphas[0])
    keep_next = np.where(before >= 0, alphas[np.maximum(before, 0)], last)
    return Schedule(timesteps, alphas[timesteps], keep_next, float(alphas[grid[start]]))


def add_noise(latent: Any, noise: Any, keep: float) -> Any:
    """Noise a clean latent to alpha bar `keep` (the paper's eq. 2 and 3 in closed form). numpy or torch, any shape."""
    return keep**0.5 * latent + (1 - keep) ** 0.5 * noise


def ddim_update(latent: Any, noise: Any, keep: float, keep_next: float) -> Any:
    """Take one deterministic step (Song et al. 2021, eq. 12 with sigma = 0). numpy or torch, any shape.

    Parameters
    ----------
    latent, noise : arrays of one shape
        The latent at alpha bar `keep`, and the noise that the network finds in it.
    keep, keep_next : float
        Alpha bar now and after the step.
    """
    clean = (latent - (1 - keep) ** 0.5 * noise) / keep**0.5
    return keep_next**0.5 * clean + (1 - keep_next) ** 0.5 * noise


def _checked(alphas_cumprod: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    alphas = np.asarray(alphas_cumprod, dtype=np.float64)
    if alphas.ndim != 1 or alphas.size == 0:
        raise ShapeError(f"alphas_cumprod has shape {alphas.shape}: give one number per trained timestep, (n_train,)")
    # Written so that NaN fails too.
    if not (np.all(alphas > 0) and np.all(alphas <= 1) and np.all(np.diff(alphas) <= 0)):
        raise InputError("alphas_cumprod does not fall within (0, 1]: take it from the model folder's scheduler config")
    return alphas
