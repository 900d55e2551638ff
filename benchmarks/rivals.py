"""diffusers' own image-to-image pipeline on the same networks, from the same noised latent, eager or compiled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from trials import Trials

from minddiffuser.runtime.generators.ddim import add_noise, ddim_schedule
from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.sampling import Sampling

GUIDANCE = 5.0


class Pipeline:
    """StableDiffusionImg2ImgPipeline with its DDIM scheduler: 50 steps, of which the last 35, guidance 5.

    The pipeline noises its start to the step where it begins; the paper noises to step 37 and begins at step 34. It
    is given the latent that becomes the paper's when the pipeline has noised it, so that both compute one picture.
    """

    def __init__(self, models: Models, trials: Trials) -> None:
        from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

        self._pipeline: Any = StableDiffusionImg2ImgPipeline(
            vae=models.vae,
            text_encoder=models.text_encoder,
            tokenizer=models.tokenizer,
            unet=models.unet,
            scheduler=DDIMScheduler(
                trained_betas=_betas(models),
                clip_sample=False,
                set_alpha_to_one=models.set_alpha_to_one,
                steps_offset=models.steps_offset,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self._pipeline.set_progress_bar_config(disable=True)
        self._device = models.device
        context, uncond = torch.from_numpy(trials.context), torch.from_numpy(trials.uncond_context)
        self._given: dict[str, Tensor] = {
            "image": _start(models, trials),
            "prompt_embeds": context,
            "negative_prompt_embeds": uncond.expand_as(context).contiguous(),
        }
        self._given = {name: array.to(models.device, models.dtype) for name, array in self._given.items()}

    def latents(self) -> Tensor:
        """All steps, without the decoder."""
        return self._run("latent")

    def pictures(self) -> Tensor:
        """(n, 3, H, W) in [0, 1], as tensors: nothing is spent on PIL."""
        return self._run("pt")

    def _run(self, kind: str) -> Tensor:
        made: Tensor = self._pipeline(
            **self._given,
            strength=Sampling.n_reverse / Sampling.n_steps,
            num_inference_steps=Sampling.n_steps,
            guidance_scale=GUIDANCE,
            eta=0.0,
            generator=_generator(),
            output_type=kind,
            return_dict=False,
        )[0]
        return made


def compiled(models: Models, **options: Any) -> Models:
    """The same networks, the UNet and the VAE's decoder through torch.compile; nothing is compiled before it runs."""
    # One program for each batch size and gradient mode; beyond the limit PyTorch falls back to eager in silence.
    torch._dynamo.config.recompile_limit = 64
    unet = torch.compile(models.unet, dynamic=False, **options)
    models.vae.decode = torch.compile(models.vae.decode, dynamic=False, **options)
    return replace(models, unet=unet)


class TensorTimestep:
    """A UNet that is given its timestep as a tensor, made once: as a number, each one would be compiled for itself."""

    def __init__(self, unet: Any) -> None:
        self.config, self._unet = unet.config, unet
        self._made: dict[int, Tensor] = {}

    def __call__(self, latent: Tensor, timestep: int | Tensor, **given: Any) -> Any:
        if isinstance(timestep, int):
            if timestep not in self._made:
                self._made[timestep] = torch.tensor(timestep, device=latent.device)
            timestep = self._made[timestep]
        return self._unet(latent, timestep, **given)


def _betas(models: Models) -> Any:
    alphas = models.alphas_cumprod
    before = [1.0, *alphas[:-1].tolist()]
    return [1 - float(now) / earlier for now, earlier in zip(alphas, before, strict=True)]


def _start(models: Models, trials: Trials) -> Tensor:
    """Solve the pipeline's noising, in float64, for the latent that it turns into the paper's."""
    schedule = ddim_schedule(models)
    wanted = torch.from_numpy(add_noise(trials.latent.astype("float64"), trials.noise, schedule.noise_keep))
    drawn = torch.randn(wanted.shape, generator=_generator(), dtype=models.dtype).double()
    keep = float(schedule.keep[0])
    start: Tensor = (wanted - (1 - keep) ** 0.5 * drawn) / keep**0.5
    return start


def _generator() -> torch.Generator:
    # On the CPU whatever the device: diffusers draws there, and a seed means the same noise everywhere.
    return torch.Generator().manual_seed(0)
