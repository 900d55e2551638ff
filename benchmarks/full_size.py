"""Stable Diffusion 1.4 and CLIP ViT-B/32 at full size with random weights: as slow as the real ones, no download."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from minddiffuser.runtime.models.models import Models
from minddiffuser.runtime.models.noise_schedule import NoiseSchedule
from minddiffuser.runtime.models.preprocess import Preprocessing

UNET: dict[str, Any] = {
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "in_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
}
VAE: dict[str, Any] = {
    "act_fn": "silu",
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "sample_size": 512,
    "scaling_factor": 0.18215,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
CLIP: dict[str, Any] = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    # Only the visual tower is kept: a small text tower is made and dropped.
    "text_cfg": {"context_length": 15, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1},
}
TEXT_WIDTH = 768
PREPROCESSING = Preprocessing(
    size=224, mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)
)


def random_unet(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """The UNet of Stable Diffusion 1.4, 860 million random weights."""
    from diffusers import UNet2DConditionModel

    return _frozen(_drawn(lambda: UNet2DConditionModel(**UNET), device), device, dtype)


def random_models(device: str = "cpu", dtype: torch.dtype = torch.float32, *, unet: Any = None) -> Models:
    """All networks that a graph or a stage uses, on one device ("meta": shapes only); no text encoder."""
    import open_clip
    from diffusers import AutoencoderKL

    vae = _drawn(lambda: AutoencoderKL(**VAE), device)
    visual = _drawn(lambda: open_clip.CLIP(**CLIP).visual, device)
    return Models(
        vae=_frozen(vae, device, dtype),
        unet=random_unet(device, dtype) if unet is None else unet,
        text_encoder=SimpleNamespace(config=SimpleNamespace(hidden_size=TEXT_WIDTH)),
        tokenizer=None,
        clip=_frozen(visual, device, dtype, channels_last=False),
        preprocessing=PREPROCESSING,
        schedule=schedule(),
        preset="reference",
        device=torch.device(device),
        dtype=dtype,
        hash="0" * 64,
        name="random Stable Diffusion 1.4",
    )


def schedule() -> NoiseSchedule:
    """Stable Diffusion 1.4's."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return NoiseSchedule(alphas_cumprod=np.cumprod(1 - betas), steps_offset=1, set_alpha_to_one=False)


def _drawn(make: Callable[[], Any], device: str) -> Any:
    """Random weights, drawn on the CPU: the same whatever device they go to."""
    with torch.random.fork_rng(devices=[]), torch.device("meta" if device == "meta" else "cpu"):
        torch.manual_seed(0)
        return make()


def _frozen(module: Any, device: str, dtype: torch.dtype, *, channels_last: bool = True) -> Any:
    module.eval().requires_grad_(False)
    # Not diffusers' own method, which warns of layers that some models keep in float32.
    torch.nn.Module.to(module, device=device, dtype=dtype)
    return torch.nn.Module.to(module, memory_format=torch.channels_last) if channels_last else module
