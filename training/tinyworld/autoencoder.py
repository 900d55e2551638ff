"""The tiny world's VAE: a diffusers AutoencoderKL, 64 x 64 pixels to a 4 x 8 x 8 latent and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from .loop import LoopSettings, compiled, train
from .pictures import Pictures, write_array
from .scenes import IMAGE_SIZE

SETTINGS = LoopSettings(steps=5_000, learning_rate=2.5e-3, weight_decay=0.0, seed=11)
# The decoder goes on learning behind a frozen encoder, so that the denoiser can start on final latents meanwhile.
POLISH = LoopSettings(steps=6_600, learning_rate=1.5e-3, weight_decay=0.0, seed=14)
BATCH = 16
KL_WEIGHT = 1e-3


def build() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
    )


def to_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """(n, H, W, 3) uint8 to (n, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def fit(pictures: Pictures, folder: Path, settings: LoopSettings = SETTINGS, *, device: str = "cpu") -> AutoencoderKL:
    """Train and return the autoencoder with `scaling_factor` set so that latents have unit deviation."""
    torch.manual_seed(settings.seed)
    vae = build().to(device, memory_format=torch.channels_last)

    def objective(image: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = vae.encode(image).latent_dist
        rebuilt = vae.decode(posterior.mean + posterior.std * noise).sample
        error = rebuilt - image
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        squared = error.square().mean()
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return error.abs().mean() + 4 * squared + edges + KL_WEIGHT * kl, squared

    fast = compiled(objective)

    def loss(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        image = to_tensor(pictures.images[np.sort(rng.integers(len(pictures), size=BATCH))]).to(device)
        noise = torch.from_numpy(rng.standard_normal((BATCH, 4, 8, 8), np.float32)).to(device)
        value, squared = fast(image.contiguous(memory_format=torch.channels_last), noise)
        return value, {"psnr_db": float(10 * np.log10(4 / squared.item()))}

    train(vae, loss, folder, "autoencoder", settings)
    with torch.no_grad():
        sample = pictures.images[:: max(1, len(pictures) // 2_000)]
        latents = [vae.encode(to_tensor(part).to(device)).latent_dist.mean for part in np.array_split(sample, 20)]
    vae.register_to_config(scaling_factor=float(1 / torch.cat(latents).std()))
    return vae.to("cpu").eval()


def encode_all(
    vae: AutoencoderKL, pictures: Pictures, path: Path, progress: Callable[[int, int], None] | None = None
) -> torch.Tensor:
    """Latents of every picture (posterior mean times scaling factor), computed once into `path`."""
    if not path.exists():
        parts = []
        for start in range(0, len(pictures), 250):
            with torch.no_grad():
                image = to_tensor(pictures.images[start : start + 250])
                parts.append((vae.encode(image).latent_dist.mean * vae.config.scaling_factor).numpy())
            if progress is not None:
                progress(start + len(parts[-1]), len(pictures))
        latents = np.concatenate(parts)
        write_array(path, latents.shape, latents.dtype, [latents])
    return torch.from_numpy(np.load(path, allow_pickle=False))


def polish(
    vae: AutoencoderKL,
    pictures: Pictures,
    latents: torch.Tensor,
    folder: Path,
    settings: LoopSettings = POLISH,
    *,
    device: str = "cpu",
) -> AutoencoderKL:
    """Train the decoder further on the final latents (scaled, one per picture); the encoder stays what it is."""
    vae = vae.float().to(device, memory_format=torch.channels_last).requires_grad_(False)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)

    def objective(latent: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        error = vae.decode(latent).sample - image
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        squared = error.square().mean()
        return 0.2 * error.abs().mean() + 6 * squared + 0.1 * edges, squared

    fast = compiled(objective)

    def loss(rng: np.random.Generator, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = np.sort(rng.integers(len(pictures), size=BATCH))
        image = to_tensor(pictures.images[chosen]).to(device).contiguous(memory_format=torch.channels_last)
        latent = latents[torch.from_numpy(chosen)].to(device) / vae.config.scaling_factor
        value, squared = fast(latent, image)
        return value, {"psnr_db": float(10 * np.log10(4 / squared.item()))}

    train(vae, loss, folder, "decoder", settings)
    return vae.to("cpu").requires_grad_(False).eval()
