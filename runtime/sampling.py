"""Settings of sampling as one frozen dataclass, the paper's by default, for every backend."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import InputError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of the DDIM sampler, on the grid of :func:`~minddiffuser.runtime.generators.ddim.ddim_schedule`.

    `n_noise` and `n_reverse` are independent, because the published setting does not match them: the paper's 37
    forward and 35 reverse steps are, in the reference code, a latent noised to step 37 (timestep 741) and denoised from
    step 34 (timestep 681) as if it were that much less noisy. The default is that published setting.

    Parameters
    ----------
    guidance_scale : float
        Of classifier-free guidance; 1.0 leaves the unconditional half out.
    n_steps : int
        Steps of a full run over the grid.
    n_noise : int or None
        Step of the grid, counted from 0, to which the start latent is noised; None for ``n_reverse - 1``, exactly the
        step where denoising begins.
    n_reverse : int
        Denoising steps, the last of which is step 0.

    Raises
    ------
    InputError
        A guidance scale that is not finite, or a number of steps outside the grid.
    """

    guidance_scale: float = 5.0
    n_steps: int = 50
    n_noise: int | None = 37
    n_reverse: int = 35

    def __post_init__(self) -> None:
        if not math.isfinite(self.guidance_scale):
            raise InputError(f"guidance_scale is {self.guidance_scale}: give a finite number, such as 5.0")
        if self.n_steps < 1:
            raise InputError(f"n_steps is {self.n_steps}: choose 1 or more")
        if not 1 <= self.n_reverse <= self.n_steps:
            raise InputError(f"n_reverse is {self.n_reverse}: choose 1 to n_steps = {self.n_steps}")
        if not 0 <= self.start < self.n_steps:
            raise InputError(f"n_noise is {self.n_noise}: choose a step from 0 to n_steps - 1 = {self.n_steps - 1}")

    @property
    def start(self) -> int:
        """The step of the grid to which the start latent is noised."""
        return self.n_reverse - 1 if self.n_noise is None else self.n_noise


SAMPLINGS = {
    "published": Sampling(),
    # From the noise that belongs to the step where denoising begins, and from much less of it, so that more of the
    # decoded latent is left: where the refiner guided begins too.
    "near": Sampling(n_steps=25, n_noise=None, n_reverse=8),
}
"""Ways to sample stage 1 that have a name."""
