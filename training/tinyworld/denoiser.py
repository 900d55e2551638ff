"""The tiny world's diffusion model: a UNet over 4 x 8 x 8 latents and the text encoder trained along with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .loop import LoopSettings, compiled, train
from .pictures import Pictures
from .scenes import BACKGROUNDS, COLOURS, CONCEPTS
from .tokens import END, N_TOKENS, START

SETTINGS = LoopSettings(steps=8_000, learning_rate=1.2e-3, warmup=300, ema=0.999, seed=13, save_every=500)
BATCH = 64
CAPTION_DROPOUT = 0.12
MIN_SNR = 5.0
D_TEXT = 64

# Stable Diffusion 1.4's own schedule.
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}


@dataclass(frozen=True)
class Denoiser:
    """The two networks that learn to denoise under words."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel


def build_unet() -> UNet2DConditionModel:
    """Words enter at 4 x 4 only: the 8 x 8 level holds two thirds of the cost of an attention block."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=D_TEXT,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=D_TEXT,
            intermediate_size=4 * D_TEXT,
            projection_dim=D_TEXT,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=N_TOKENS,
            bos_token_id=tokenizer.convert_tokens_to_ids(START),
            eos_token_id=tokenizer.convert_tokens_to_ids(END),
            pad_token_id=tokenizer.convert_tokens_to_ids(END),
        )
    )


def fit(
    pictures: Pictures,
    latents: torch.Tensor,
    tokenizer: CLIPTokenizer,
    folder: Path,
    settings: LoopSettings = SETTINGS,
    *,
    device: str = "cpu",
) -> Denoiser:
    """Train both networks on predicting the noise, captions dropped now and then for guidance.

    The loss is weighted by min(SNR, 5) / SNR (Hang et al. 2023), which evens out the timesteps.
    """
    torch.manual_seed(settings.seed)
    both = torch.nn.ModuleDict({"unet": build_unet(), "text_encoder": build_text_encoder(tokenizer)}).to(device)
    unet, text_encoder = both["unet"], both["text_encoder"]
    scheduler = DDPMScheduler.from_config({k: v for k, v in SCHEDULER.items() if k != "_class_name"})
    keep = scheduler.alphas_cumprod.to(device)
    words = [
        f"a {colour} {concept} in the {place}" for concept in CONCEPTS for colour in COLOURS for place in BACKGROUNDS
    ]
    tokens = tokenizer([*words, ""], padding="max_length", max_length=N_TOKENS, return_tensors="pt").input_ids.to(
        device
    )

    def objective(latent: torch.Tensor, noise: torch.Tensor, time: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        alpha = keep[time].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latent + (1 - alpha).sqrt() * noise
        guess = unet(noisy, time, text_encoder(text).last_hidden_state).sample
        snr = keep[time] / (1 - keep[time])
        weight = snr.clamp(max=MIN_SNR) / snr
        return (weight * (guess - noise).square().mean(dim=(1, 2, 3))).mean()

    fast = compiled(objective)

    def loss(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = rng.integers(len(latents), size=BATCH)
        labels = torch.from_numpy(pictures.labels[chosen])
        which = (labels[:, 0] * len(COLOURS) + labels[:, 1]) * len(BACKGROUNDS) + labels[:, 2]
        which[torch.from_numpy(rng.random(BATCH) < CAPTION_DROPOUT)] = len(words)
        noise = torch.from_numpy(rng.standard_normal((BATCH, *latents.shape[1:]), np.float32)).to(device)
        time = torch.from_numpy(rng.integers(1000, size=BATCH)).to(device)
        value = fast(latents[torch.from_numpy(chosen)].to(device), noise, time, tokens[which.to(device)])
        return value, {"loss": value.item()}

    train(both, loss, folder, "denoiser", settings)
    both = both.to("cpu").eval()
    return Denoiser(both["unet"], both["text_encoder"])
