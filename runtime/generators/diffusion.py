"""Stage 1, differentiable: the decoded latent noised, denoised under the decoded context, and decoded to a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..errors import ShapeError
from ..sampling import Sampling
from .base import check_start, check_truncation
from .ddim import Schedule, add_noise, clean_estimate, ddim_schedule, ddim_update

Array = NDArray[np.float32] | Tensor


class DiffusionGenerator:
    """Pictures of a latent diffusion model as a function of latent and context (both stages of the paper).

    A :class:`~.base.Generator`, and a :class:`~.base.Sampler` whose steps do not depend on `backprop_steps`.

    Parameters are ``latent`` and ``context``. What ``latent`` is depends on `backprop_steps`:

    - None: the decoded latent *z* itself, noised inside :meth:`render`; gradients pass through all steps.
    - K: the latent before the last K denoising steps, computed once with the start context and without gradients;
      :meth:`render` runs those K steps. With K = `n_reverse` this is the noised latent.
    - 0: the denoised latent. The context has no effect any more and is not a parameter.

    Token 0 of the context (beginning of sequence) is the same in every caption and is not decoded; `render` takes it
    from the start context, so its gradient is exactly zero and no refinement moves it.

    Latents are kept in float32 (float64 for float64 models) and only the network's own work is done in a narrower
    type, since 35 rounded updates would add up. Each step is a checkpoint: the backward pass recomputes it, and
    memory does not grow with the number of steps.

    Parameters
    ----------
    models : Models
        Anything with `predict_noise`, `decode_latent`, `alphas_cumprod`, `steps_offset`, `set_alpha_to_one`,
        `device` and `dtype`; what its methods return is float32 or wider.
    latent : float array or tensor of shape (n, 4, h, w)
        *z*, in units of the model's scaled latents.
    context : float array or tensor of shape (n, 15, d_text)
    uncond_context : float array or tensor of shape (15, d_text)
        Context of the empty caption, for classifier-free guidance.
    noise : float array or tensor of shape (n, 4, h, w), or function of the iteration that gives one
        A function (:func:`~minddiffuser.runtime.generators.noise.fresh_noise`) is asked anew at each `render` after
        `initial`; this is how the reference code draws it, and makes the loss noisy. Not with `backprop_steps`,
        where noising is over before the first parameter.
    sampling : Sampling, optional
        None: the published setting.
    backprop_steps : int or None
    checkpointing : bool
        False keeps every step's activations: faster by a third where memory allows.

    Raises
    ------
    ShapeError
        Arrays that do not fit each other.
    InputError
        A number of steps outside the grid, or fresh noise with `backprop_steps`.
    """

    def __init__(
        self,
        models: Any,
        latent: Array,
        context: Array,
        uncond_context: Array,
        noise: Array | Callable[[int], Array],
        *,
        sampling: Sampling | None = None,
        backprop_steps: int | None = None,
        checkpointing: bool = True,
    ) -> None:
        chosen = Sampling() if sampling is None else sampling
        check_truncation(backprop_steps, chosen, fresh_noise=callable(noise))
        self._models = models
        self._float = torch.promote_types(models.dtype, torch.float32)
        self._latent, self._context = self._tensor(latent), self._tensor(context)
        self._uncond = self._tensor(uncond_context)
        check_start(self._latent, self._context, self._uncond)
        self._noise_at = noise if callable(noise) else _constant(self._tensor(noise))
        self._schedule = ddim_schedule(models, chosen)
        self._guidance, self._checkpointing = chosen.guidance_scale, checkpointing
        self._backprop_steps = backprop_steps
        self._cached: Tensor | None = None
        self._iteration = 0
        self._noised(self._latent)  # noise of another shape is refused here, not in the middle of a run

    def initial(self) -> dict[str, Tensor]:
        """Give the start parameters ``latent`` and, unless `backprop_steps` is 0, ``context``; restart the noise."""
        self._iteration = 0
        if self._backprop_steps is None:
            return {"latent": self._latent.clone(), "context": self._context.clone()}
        if self._cached is None:
            with torch.no_grad():
                head = list(self._schedule)[: len(self._schedule) - self._backprop_steps]
                self._cached = self._denoise(self._noised(self._latent), self._context, head)
        params = {"latent": self._cached.clone()}
        if self._backprop_steps > 0:
            params["context"] = self._context.clone()
        return params

    def render(self, params: Mapping[str, Tensor]) -> Tensor:
        """Run the remaining denoising steps and decode: image (n, 3, H, W) in [0, 1]."""
        latent, context = params["latent"], params.get("context", self._context)
        context = torch.cat([self._context[:, :1], context[:, 1:]], dim=1)
        steps = list(self._schedule)
        if self._backprop_steps is None:
            latent = self._noised(latent)
            self._iteration += 1
        else:
            steps = steps[len(steps) - self._backprop_steps :]
        image: Tensor = self._models.decode_latent(self._denoise(latent, context, steps))
        return image

    def stage1(self) -> Tensor:
        """Stage 1 of the paper: all steps, no gradients; the very pictures of ``render(initial())``."""
        with torch.no_grad():
            image = self.render(self.initial())
        self._iteration = 0
        return image

    @property
    def schedule(self) -> Schedule:
        return self._schedule

    def start(self, noise: Array) -> Tensor:
        """See :meth:`.base.Sampler.start`."""
        return self._noised_with(self._latent, self._tensor(noise))

    def predict(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See :meth:`.base.Sampler.predict`."""
        with torch.no_grad():
            return self._clean(x, k)

    def linearise(self, x: Tensor, k: int) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """See :meth:`.base.Sampler.linearise`; the activations of one step are kept until the way back."""
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            clean, noise = self._clean(leaf, k)

        def pull_back(v: Tensor) -> Tensor:
            # A product is linear in v: each trial's is brought to unit size by a power of two, which rounds nothing, so
            # that networks in half precision do not lose it.
            # (On the host: Apple's GPUs have no frexp.)
            exponent = torch.frexp(v.abs().amax((1, 2, 3), keepdim=True).cpu()).exponent.to(v.device)
            (gradient,) = torch.autograd.grad(clean, leaf, torch.ldexp(v, -exponent))
            return torch.ldexp(gradient, exponent)

        return clean.detach(), noise.detach(), pull_back

    def decode(self, x0: Tensor) -> Tensor:
        """See :meth:`.base.Sampler.decode`."""
        with torch.no_grad():
            image: Tensor = self._models.decode_latent(x0)
        return image

    def _clean(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        noise = self._guided_noise(x, int(self._schedule.timesteps[k]), self._context)
        return clean_estimate(x, noise, float(self._schedule.keep[k])), noise

    def _denoise(self, latent: Tensor, context: Tensor, steps: list[tuple[int, float, float]]) -> Tensor:
        save_memory = (
            self._checkpointing and torch.is_grad_enabled() and (latent.requires_grad or context.requires_grad)
        )
        for step in steps:
            if save_memory:
                # Nothing random happens inside a step: no random state to put back when it is run again.
                latent = checkpoint(self._step, latent, context, *step, use_reentrant=False, preserve_rng_state=False)
            else:
                latent = self._step(latent, context, *step)
        return latent

    def _step(self, latent: Tensor, context: Tensor, timestep: int, keep: float, keep_next: float) -> Tensor:
        return ddim_update(latent, self._guided_noise(latent, timestep, context), keep, keep_next)  # type: ignore[no-any-return]

    def _guided_noise(self, latent: Tensor, timestep: int, context: Tensor) -> Tensor:
        predict = self._models.predict_noise
        if self._guidance == 1.0:
            return predict(latent, timestep, context)  # type: ignore[no-any-return]
        both = torch.cat([self._uncond.expand_as(context), context])
        without, with_context = predict(torch.cat([latent, latent]), timestep, both).chunk(2)
        return without + self._guidance * (with_context - without)  # type: ignore[no-any-return]

    def _noised(self, latent: Tensor) -> Tensor:
        return self._noised_with(latent, self._tensor(self._noise_at(self._iteration)))

    def _noised_with(self, latent: Tensor, noise: Tensor) -> Tensor:
        if noise.shape != latent.shape:
            raise ShapeError(
                f"noise has shape {tuple(noise.shape)}, the latent {tuple(latent.shape)}: give one per trial"
            )
        return add_noise(latent, noise, self._schedule.noise_keep)  # type: ignore[no-any-return]

    def _tensor(self, array: Array) -> Tensor:
        return torch.as_tensor(array).detach().to(device=self._models.device, dtype=self._float)


def _constant(noise: Tensor) -> Callable[[int], Tensor]:
    return lambda _iteration: noise
