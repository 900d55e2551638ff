"""Stage 1 on engines: the decoded latent noised, denoised and decoded to a picture, without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..engines.base import Engines
from ..engines.ort.engine import as_numpy
from ..errors import ShapeError
from ..sampling import Sampling
from .base import Float32, check_start, check_truncation
from .ddim import Schedule, TrainedNoise, add_noise, clean_estimate, ddim_schedule, noise_table, step_table


class EngineGenerator:
    """What :class:`~minddiffuser.runtime.generators.diffusion.DiffusionGenerator` is, over engines.

    The same parameters mean the same, and the pictures are the same up to the engines' precision. Parameters and
    pictures are numpy arrays; between two denoising steps latents stay where the engine keeps them.

    Parameters
    ----------
    engines : mapping
        "denoise" and "vae_decode"; for :meth:`linearise` "denoise_gradient" too.
    trained : TrainedNoise
        Of the networks.
    latent, context, uncond_context, noise, sampling, backprop_steps
        As there, numpy float32.
    loop
        Runs all denoising steps at once, ``(latent, table, context, uncond_context, guidance) -> latents`` of shape
        (n_steps + 1, n, 4, h, w), where the backend can; None steps one by one.

    Raises
    ------
    ShapeError, InputError
        As there.
    """

    def __init__(  # noqa: PLR0913 (what a picture depends on; all choices after the arrays have defaults)
        self,
        engines: Engines,
        trained: TrainedNoise,
        latent: Float32,
        context: Float32,
        uncond_context: Float32,
        noise: Float32 | Callable[[int], Float32],
        *,
        sampling: Sampling | None = None,
        backprop_steps: int | None = None,
        loop: Callable[..., Any] | None = None,
    ) -> None:
        chosen = Sampling() if sampling is None else sampling
        check_truncation(backprop_steps, chosen, fresh_noise=callable(noise))
        self._engines, self._loop = engines, loop
        self._latent, self._context = _solid(latent), _solid(context)
        self._uncond = _solid(uncond_context)
        check_start(self._latent, self._context, self._uncond)
        self._noise_at = noise if callable(noise) else lambda _iteration: noise
        self._schedule = ddim_schedule(trained, chosen)
        self._table = step_table(self._schedule)
        self._guidance = np.array([chosen.guidance_scale], np.float32)
        self._placed: dict[str, Any] | None = None
        self.backprop_steps = backprop_steps
        self._cached: Float32 | None = None
        self._iteration = 0
        self._noised(self._latent)  # noise of another shape is refused here, not in the middle of a run

    @property
    def latent_scale(self) -> float:
        """How much of ``params["latent"]`` is in the latent that denoising begins with."""
        return self._schedule.noise_keep**0.5 if self.backprop_steps is None else 1.0

    @property
    def first_step(self) -> int:
        """The first of the denoising steps that parameters act on."""
        return 0 if self.backprop_steps is None else len(self._table) - self.backprop_steps

    def initial(self) -> dict[str, Float32]:
        """Give the start parameters ``latent`` and, unless `backprop_steps` is 0, ``context``; restart the noise."""
        self._iteration = 0
        if self.backprop_steps is None:
            return {"latent": self._latent.copy(), "context": self._context.copy()}
        if self._cached is None:
            head = range(self.first_step)
            self._cached = as_numpy(self._denoised(self._noised(self._latent), self._context, head)[-1])
        params = {"latent": self._cached.copy()}
        if self.backprop_steps > 0:
            params["context"] = self._context.copy()
        return params

    def latents(self, params: Mapping[str, Float32]) -> list[Any]:
        """Run the remaining denoising steps and keep every latent, first to last, where the engine keeps them."""
        latent = params["latent"]
        if self.backprop_steps is None:
            latent = self._noised(latent)
            self._iteration += 1
        steps = range(self.first_step, len(self._table))
        return self._denoised(_solid(latent), self.whole_context(params), steps)

    def step_inputs(self, latent: Any, context: Any, step: int) -> dict[str, Any]:
        """What `denoise` takes at a step; what is the same at each call lies where the engine keeps arrays."""
        placed = self._inputs()
        return {
            "latent": latent,
            "step": placed["rows"][step],
            "context": context,
            "uncond_context": placed["uncond_context"],
            "guidance": placed["guidance"],
        }

    def whole_context(self, params: Mapping[str, Float32]) -> Float32:
        """The context with token 0 of the start, which is not decoded and never moves."""
        context = params.get("context", self._context)
        return np.concatenate([self._context[:, :1], context[:, 1:]], axis=1)

    def render(self, params: Mapping[str, Float32]) -> Float32:
        """Run the remaining denoising steps and decode: image (n, 3, H, W) in [0, 1]."""
        return as_numpy(self._engines["vae_decode"].run({"latent": self.latents(params)[-1]})["image"])

    def stage1(self) -> Float32:
        """Stage 1 of the paper: the very pictures of ``render(initial())``."""
        image = self.render(self.initial())
        self._iteration = 0
        return image

    @property
    def schedule(self) -> Schedule:
        return self._schedule

    def start(self, noise: Float32) -> Float32:
        """See :meth:`.base.Sampler.start`."""
        return self._noised_with(self._latent, noise)

    def predict(self, x: Float32, k: int) -> tuple[Float32, Float32]:
        """See :meth:`.base.Sampler.predict`."""
        noise = as_numpy(self._engines["denoise"].run(self._noise_inputs(x, k))["next_latent"])
        return np.asarray(clean_estimate(x, noise, float(self._schedule.keep[k])), np.float32), noise

    def linearise(self, x: Float32, k: int) -> tuple[Float32, Float32, Callable[[Float32], Float32]]:
        """See :meth:`.base.Sampler.linearise`; the way back computes the forward pass again.

        ``x0 = (x - s e(x)) / r``, so its product with v is ``(v - s J v) / r``, where J v is the engine's for e.
        """
        clean, noise = self.predict(x, k)

        def pull_back(v: Float32) -> Float32:
            feeds = {**self._noise_inputs(x, k), "next_gradient": v}
            through = as_numpy(self._engines["denoise_gradient"].run(feeds)["latent_gradient"])
            return np.asarray(clean_estimate(v, through, float(self._schedule.keep[k])), np.float32)

        return clean, noise, pull_back

    def decode(self, x0: Float32) -> Float32:
        """See :meth:`.base.Sampler.decode`."""
        return as_numpy(self._engines["vae_decode"].run({"latent": x0})["image"])

    def _noise_inputs(self, x: Float32, k: int) -> dict[str, Any]:
        """What `denoise` takes to give the guided noise of the start context."""
        placed = self._inputs()
        return {**self.step_inputs(x, placed["context"], k), "step": placed["noise_rows"][k]}

    def _denoised(self, latent: Float32, context: Float32, steps: range) -> list[Any]:
        if self._loop is not None and len(steps) == len(self._table):
            return list(self._loop(latent, self._table, context, self._uncond, self._guidance))
        if not steps:
            return [latent]
        denoise = self._engines["denoise"]
        placed, latents = denoise.place(context), [denoise.place(latent)]
        for step in steps:
            latents.append(denoise.run(self.step_inputs(latents[-1], placed, step))["next_latent"])
        return latents

    def _inputs(self) -> dict[str, Any]:
        """What is the same at each call, where the engine keeps its arrays."""
        if self._placed is None:
            place = self._engines["denoise"].place
            self._placed = {
                "rows": [place(row) for row in self._table],
                "noise_rows": [place(row) for row in noise_table(self._schedule)],
                "context": place(self._context),
                "uncond_context": place(self._uncond),
                "guidance": place(self._guidance),
            }
        return self._placed

    def _noised(self, latent: Float32) -> Float32:
        return self._noised_with(latent, _solid(self._noise_at(self._iteration)))

    def _noised_with(self, latent: Float32, noise: Float32) -> Float32:
        if noise.shape != latent.shape:
            raise ShapeError(f"noise has shape {noise.shape}, the latent {latent.shape}: give one per trial")
        return np.asarray(add_noise(latent, noise, self._schedule.noise_keep), np.float32)


def _solid(array: Any) -> Float32:
    return np.ascontiguousarray(array, np.float32)
