"""The table of DDIM coefficients, computed once in float64 and shared by every backend, and its equations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ShapeError
from ..sampling import Sampling


class TrainedNoise(Protocol):
    """The noise that a network was trained with; models have it, and :class:`NoiseTable` is nothing else."""

    @property
    def alphas_cumprod(self) -> NDArray[np.float64]:
        """Alpha bar of every training timestep, falling, within (0, 1]: float array of shape (n_train,)."""
        ...

    @property
    def steps_offset(self) -> int:
        """As in the model folder's scheduler config."""
        ...

    @property
    def set_alpha_to_one(self) -> bool:
        """As in the same file: alpha bar after the last step is 1, or ``alphas_cumprod[0]``."""
        ...


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """See :class:`TrainedNoise`; the defaults are Stable Diffusion 1.4's."""

    alphas_cumprod: NDArray[np.float64]
    steps_offset: int = 1
    set_alpha_to_one: bool = False


@dataclass(frozen=True, eq=False)
class Schedule:
    """Coefficients of one deterministic DDIM run, first step first.

    Iterating gives ``(timestep, keep, keep_next)`` as Python numbers, so that an update never changes an array's dtype.

    Parameters
    ----------
    timesteps : int64 array of shape (n_reverse,)
        The timestep given to the network, descending.
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


def ddim_schedule(trained: TrainedNoise, sampling: Sampling | None = None) -> Schedule:
    """Compute the coefficients of a DDIM run (Song et al. 2021, eq. 12 with sigma = 0) that starts part of the way.

    The grid is diffusers' "leading" one: step ``i`` of ``n_steps`` is timestep ``i * (n_train // n_steps) +
    steps_offset``, for Stable Diffusion 1.4 1, 21, ..., 981.

    Parameters
    ----------
    trained : TrainedNoise
    sampling : Sampling, optional
        None: the published setting.

    Returns
    -------
    Schedule

    Raises
    ------
    ShapeError
        `alphas_cumprod` is not one-dimensional.
    InputError
        It does not fall within (0, 1], or the grid leaves the trained timesteps.
    """
    chosen = Sampling() if sampling is None else sampling
    alphas, offset = _checked(trained.alphas_cumprod), trained.steps_offset
    if chosen.n_steps > len(alphas):
        raise InputError(
            f"n_steps is {chosen.n_steps}: choose 1 to {len(alphas)}, the timesteps that the model was trained on"
        )
    spacing = len(alphas) // chosen.n_steps
    grid = np.arange(chosen.n_steps, dtype=np.int64) * spacing + offset
    if not 0 <= offset or grid[max(chosen.start, chosen.n_reverse - 1)] >= len(alphas):
        raise InputError(
            f"steps_offset {offset} moves the grid outside the {len(alphas)} trained timesteps: "
            "take n_steps and steps_offset from the model folder's scheduler config"
        )
    timesteps = grid[: chosen.n_reverse][::-1].copy()
    before = timesteps - spacing  # below zero once, after the last step
    last = 1.0 if trained.set_alpha_to_one else float(alphas[0])
    keep_next = np.where(before >= 0, alphas[np.maximum(before, 0)], last)
    return Schedule(timesteps, alphas[timesteps], keep_next, float(alphas[grid[chosen.start]]))


def step_table(schedule: Schedule) -> NDArray[np.float32]:
    """Rows (timestep, latent_scale, noise_scale) of a DDIM run as engines take them, first step first.

    ``next = latent_scale * latent + noise_scale * noise`` is :func:`ddim_update` with its terms collected:
    ``latent_scale = sqrt(keep_next / keep)`` and ``noise_scale = sqrt(1 - keep_next) - latent_scale * sqrt(1 - keep)``,
    in float64 and rounded once.

    Returns
    -------
    float32 array of shape (n_reverse, 3)
    """
    keep, keep_next = schedule.keep, schedule.keep_next
    latent_scale = np.sqrt(keep_next / keep)
    noise_scale = np.sqrt(1 - keep_next) - latent_scale * np.sqrt(1 - keep)
    return np.stack([schedule.timesteps, latent_scale, noise_scale], axis=1).astype(np.float32)


def noise_table(schedule: Schedule) -> NDArray[np.float32]:
    """Rows (timestep, 0, 1) for the same engines: what comes out is the guided noise itself. float32 (n_reverse, 3)."""
    n_reverse = len(schedule)
    return np.stack([schedule.timesteps, np.zeros(n_reverse), np.ones(n_reverse)], axis=1).astype(np.float32)


def add_noise(latent: Any, noise: Any, keep: float) -> Any:
    """Noise a clean latent to alpha bar `keep` (the paper's eq. 2 and 3 in closed form). numpy or torch, any shape."""
    return keep**0.5 * latent + (1 - keep) ** 0.5 * noise


def clean_estimate(latent: Any, noise: Any, keep: float) -> Any:
    """What is left when the noise is taken out: the predicted x0 of eq. 12. numpy or torch, any shape.

    Parameters
    ----------
    latent, noise : arrays of one shape
        The latent at alpha bar `keep`, and the noise that the network finds in it.
    keep : float
    """
    return (latent - (1 - keep) ** 0.5 * noise) / keep**0.5


def ddim_update(latent: Any, noise: Any, keep: float, keep_next: float) -> Any:
    """Take one deterministic step (Song et al. 2021, eq. 12 with sigma = 0). numpy or torch, any shape.

    Parameters
    ----------
    latent, noise : arrays of one shape
        The latent at alpha bar `keep`, and the noise that the network finds in it.
    keep, keep_next : float
        Alpha bar now and after the step.
    """
    return keep_next**0.5 * clean_estimate(latent, noise, keep) + (1 - keep_next) ** 0.5 * noise


def _checked(alphas_cumprod: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    alphas = np.asarray(alphas_cumprod, dtype=np.float64)
    if alphas.ndim != 1 or alphas.size == 0:
        raise ShapeError(f"alphas_cumprod has shape {alphas.shape}: give one number per trained timestep, (n_train,)")
    # Written so that NaN fails too.
    if not (np.all(alphas > 0) and np.all(alphas <= 1) and np.all(np.diff(alphas) <= 0)):
        raise InputError("alphas_cumprod does not fall within (0, 1]: take it from the model folder's scheduler config")
    return alphas
