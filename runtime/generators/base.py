"""What a generator is: a differentiable way from parameters to pictures, and for some, a way in steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ShapeError
from ..sampling import Sampling
from .ddim import Schedule

Float32 = NDArray[np.float32]
A = TypeVar("A")
"""The arrays of a backend: all of them numpy's, or all of them PyTorch's tensors."""


class Generator(Protocol[A]):
    """A batch of pictures as a differentiable function of parameters.

    Trials are rows and never mix: row i of every parameter is all that picture i depends on.
    """

    def initial(self) -> dict[str, A]:
        """Give the start parameters: fresh float arrays by name, each with one row per trial."""
        ...

    def stage1(self) -> A:
        """Give the pictures of the start, float (n, 3, H, W) in [0, 1]: those of ``render(initial())``."""
        ...

    def render(self, params: Mapping[str, A]) -> A:
        """Give the pictures, float (n, 3, H, W) in [0, 1], differentiable with respect to every array in `params`."""
        ...


@runtime_checkable
class Projecting(Protocol[A]):
    """What a generator has besides, if its parameters live on a surface, such as the sphere of a GAN's z."""

    def project(self, params: Mapping[str, A]) -> dict[str, A]:
        """Give parameters that an update has moved back on the surface, trial by trial."""
        ...


@runtime_checkable
class Sampler(Generator[A], Protocol[A]):
    """A generator that samples in steps, as a refiner inside the sampler sees it.

    Step ``k`` counts from 0, the noisiest. Trials are rows and never mix; context and guidance are the generator's own.
    With ``keep`` of the schedule at that step, ``x0 = (x - sqrt(1 - keep) * e) / sqrt(keep)``, and
    :func:`~minddiffuser.runtime.generators.ddim.ddim_update` goes from ``x`` and ``e`` to the next step.
    """

    @property
    def schedule(self) -> Schedule:
        """The coefficients of every step."""
        ...

    def start(self, noise: Float32) -> A:
        """Noise the start latent as in stage 1.

        Parameters
        ----------
        noise : float32 array of shape (n, 4, h, w)

        Returns
        -------
        x : float array of shape (n, 4, h, w), before step 0

        Raises
        ------
        ShapeError
            The noise has another shape than the latent.
        """
        ...

    def predict(self, x: A, k: int) -> tuple[A, A]:
        """Look at x (n, 4, h, w) before step k: the clean estimate x0 and the guided noise e, both of its shape."""
        ...

    def linearise(self, x: A, k: int) -> tuple[A, A, Callable[[A], A]]:
        """Look at x as :meth:`predict` does, and keep what the way back needs.

        Returns
        -------
        x0, e
            Those of :meth:`predict`, up to rounding.
        pull_back
            ``pull_back(v)``, v (n, 4, h, w) the gradient of anything at x0, gives the gradient at x, through the
            network: the vector-Jacobian product of x0. To be called once; nothing is kept after that.
        """
        ...

    def decode(self, x0: A) -> A:
        """Give the pictures (n, 3, H, W) in [0, 1] of clean latents (n, 4, h, w), without gradients."""
        ...


def check_start(latent: Any, context: Any, uncond: Any) -> None:
    """Refuse start arrays of stage 1 that do not fit each other. numpy and torch alike.

    Raises
    ------
    ShapeError
    """
    if latent.ndim != 4 or context.ndim != 3 or len(latent) != len(context):
        raise ShapeError(
            f"latent has shape {tuple(latent.shape)} and context {tuple(context.shape)}: "
            "give (n, 4, h, w) and (n, 15, d_text) with the same n"
        )
    if uncond.shape != context.shape[1:]:
        raise ShapeError(
            f"uncond_context has shape {tuple(uncond.shape)}, one trial's context {tuple(context.shape[1:])}: "
            "encode the empty caption with the same text encoder"
        )


def check_truncation(backprop_steps: int | None, sampling: Sampling, *, fresh_noise: bool) -> None:
    """Refuse more steps to go back through than there are, and fresh noise for a latent that is noised only once.

    Raises
    ------
    InputError
    """
    if backprop_steps is not None and not 0 <= backprop_steps <= sampling.n_reverse:
        raise InputError(
            f"backprop_steps is {backprop_steps}: choose 0 to n_reverse = {sampling.n_reverse}, or None for all"
        )
    if backprop_steps is not None and fresh_noise:
        raise InputError(
            f"fresh noise at each iteration needs full back-propagation, but backprop_steps is {backprop_steps}: "
            "leave backprop_steps out, or use fixed noise"
        )
