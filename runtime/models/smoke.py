"""Each network run once on something small: a config may make a network that opens and does not run, or gives NaN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import FileError, InputError, MindDiffuserError
from .models import Models, vae_factor
from .quiet import first_line

_SMALL = 8


@torch.no_grad()
def try_networks(models: Models) -> None:
    """Run text encoder, UNet, VAE and CLIP once.

    Raises
    ------
    InputError
        One of them does not run, or gives another shape than the rest of the code counts on.
    FileError
        One gives numbers that are not finite; half precision may, which is no fault of the folder.
    """
    channels, side, _ = models.latent_shape
    side = side if side <= 2 * _SMALL else _SMALL + side % _SMALL  # convolutions: a small square shows as much
    size = side * vae_factor(models.vae.config)
    latent = torch.linspace(-1, 1, channels * side * side, dtype=models.precise, device=models.device)
    latent = latent.view(1, channels, side, side)
    image = torch.linspace(0, 1, 3 * size * size, dtype=models.precise, device=models.device).view(1, 3, size, size)
    with _part(models, "text_encoder"):
        context = models.encode_text([""])
        _check(models, context, models.context_shape)
    with _part(models, "unet"):
        _check(models, models.predict_noise(latent, 1, context), latent.shape[1:])
    with _part(models, "vae"):
        _check(models, models.decode_unclamped(latent), image.shape[1:])
        _check(models, models.vae.encode(image.to(models.dtype)).latent_dist.mean, latent.shape[1:])
    with _part(models, "clip"):
        structure, semantic, embedding = models.features(image)
        _check(models, structure, models.structure_shape)
        _check(models, semantic, models.structure_shape[-1:])
        _check(models, embedding, (models.embedding_size,))


def _check(models: Models, given: torch.Tensor, shape: tuple[int, ...]) -> None:
    if given.shape[1:] != shape:
        raise InputError(
            f"gives {tuple(given.shape[1:])}, expected {tuple(shape)}: correct its config, or download it again"
        )
    if models.dtype in (torch.float32, torch.float64) and not given.isfinite().all():
        raise FileError(
            "gives numbers that are not finite: its weights are damaged or do not fit its config, download it again"
        )


@contextmanager
def _part(models: Models, part: str) -> Iterator[None]:
    where = f"the {part} of {models.name}"
    try:
        yield
    except MindDiffuserError as error:
        raise type(error)(f"{where} {error}") from None
    except Exception as error:  # torch, diffusers, transformers and open_clip each have their own
        raise InputError(
            f"{where} does not run ({type(error).__name__}: {first_line(error)}): correct its config, or download it "
            "again"
        ) from error
