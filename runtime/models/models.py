"""The networks of both stages behind a few verbs, the same for the tiny world and for Stable Diffusion 1.4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError, ShapeError
from ..features import N_TOKENS
from .noise_schedule import NoiseSchedule
from .preprocess import Preprocessing
from .structure import PRESETS, all_features, shallow_features, structure_shape

if TYPE_CHECKING:
    from .clip import ClipSource


@dataclass(frozen=True, kw_only=True, eq=False)
class Models:
    """Frozen networks on one device; `load_models` makes it.

    `vae`, `unet`, `text_encoder` and `clip` (the visual tower) hold weights in `dtype`; what leaves a method is
    float32 (float64 when `dtype` is), and so are the resize, the normalisation and everything a loss sees.
    No parameter wants a gradient; methods are differentiable with respect to their tensor arguments unless said.
    `hash` names exactly these weights and configs. `notes` are sentences for the user about fields of the model folder
    that are taken otherwise than the folder's own pipeline would. `clip_source` says where the CLIP was read from.
    """

    vae: Any
    unet: Any
    text_encoder: Any
    tokenizer: Any
    clip: Any
    preprocessing: Preprocessing
    schedule: NoiseSchedule
    preset: str
    device: torch.device
    dtype: torch.dtype
    hash: str
    name: str
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    clip_source: ClipSource | None = None

    @property
    def precise(self) -> torch.dtype:
        """The dtype of results: float64 for float64 models (finite differences), float32 otherwise."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def alphas_cumprod(self) -> NDArray[np.float64]:
        """(n_train_steps,) float64, read-only."""
        return self.schedule.alphas_cumprod

    @property
    def steps_offset(self) -> int:
        return self.schedule.steps_offset

    @property
    def set_alpha_to_one(self) -> bool:
        return self.schedule.set_alpha_to_one

    @property
    def scaling_factor(self) -> float:
        """What the VAE's posterior mean is multiplied by; SD 1.4: 0.18215."""
        return float(self.vae.config.scaling_factor)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(4, h, w); SD 1.4: (4, 64, 64)."""
        side = int(self.unet.config.sample_size)
        return int(self.vae.config.latent_channels), side, side

    @property
    def image_size(self) -> int:
        """Height and width of a picture in pixels: the latent's side times the VAE's factor; SD 1.4: 512."""
        return self.latent_shape[-1] * vae_factor(self.vae.config)

    @property
    def context_shape(self) -> tuple[int, int]:
        """(15, d_text); SD 1.4: (15, 768)."""
        return N_TOKENS, int(self.text_encoder.config.hidden_size)

    @property
    def structure_shape(self) -> tuple[int, int, int]:
        """(6, n_tokens, d_vision); ViT-B/32: (6, 50, 768)."""
        return structure_shape(self.clip, self.preset)

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> torch.Tensor:
        """The context of each caption: the text encoder's last hidden state, (n, 15, d_text). No gradient.

        Longer captions are cut; shorter ones are filled with the tokenizer's padding, which the encoder sees
        (no attention mask), as in Stable Diffusion.
        """
        if isinstance(captions, str) or not captions:
            raise InputError(
                f"captions are {captions!r}, expected a non-empty list of strings: pass [''] for the empty caption"
            )
        tokens = self.tokenizer(
            list(captions), padding="max_length", max_length=N_TOKENS, truncation=True, return_tensors="pt"
        )
        encoded = self.text_encoder(input_ids=tokens.input_ids.to(self.device), return_dict=True)
        hidden: torch.Tensor = encoded.last_hidden_state
        return hidden.to(self.precise)

    @torch.no_grad()
    def encode_latent(self, image: torch.Tensor) -> torch.Tensor:
        """The latent of images (n, 3, H, W) in [0, 1]: posterior mean times scaling factor. No gradient.

        The reference code draws a sample of the posterior instead, which adds noise to the decoder's targets.
        """
        size = self.image_size
        if image.ndim != 4 or tuple(image.shape[1:]) != (3, size, size):
            raise ShapeError(
                f"images have shape {tuple(image.shape)}, expected (n, 3, {size}, {size}): "
                "resize them with runtime.images.fit_square"
            )
        pixels = image.to(self.device, self.precise) * 2 - 1
        mean: torch.Tensor = self.vae.encode(pixels.to(self.dtype)).latent_dist.mean
        return mean.to(self.precise) * self.scaling_factor

    def decode_latent(self, latent: torch.Tensor) -> torch.Tensor:
        """The image (n, 3, H, W) in [0, 1] of latents (n, 4, h, w); clamped, so a saturated pixel has no gradient."""
        return self.decode_unclamped(latent).clamp(0, 1)

    def decode_unclamped(self, latent: torch.Tensor) -> torch.Tensor:
        """What :meth:`decode_latent` clamps."""
        scaled = latent.to(self.precise) / self.scaling_factor
        image: torch.Tensor = self.vae.decode(scaled.to(self.dtype)).sample
        return image.to(self.precise) / 2 + 0.5

    def predict_noise(self, latent: torch.Tensor, timestep: int | torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """The noise that the UNet sees in `latent` (n, 4, h, w) at `timestep` (0 to 999), given `context`.

        `timestep` may be a scalar tensor, so that an exported graph takes it as an input.
        """
        noise: torch.Tensor = self.unet(
            latent.to(self.dtype), timestep, encoder_hidden_states=context.to(self.dtype)
        ).sample
        return noise.to(self.precise)

    def structure(self, image: torch.Tensor, *, semantic: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Structural features of images (n, 3, H, H) in [0, 1], any H.

        Returns
        -------
        structure : (n, 6, n_tokens, d_vision)
            Outputs of `mlp.c_proj` of the preset's blocks; token-major, class token first.
        semantic : (n, d_vision) or None
            With `semantic`, the class token that leaves the last block but one (eq. 6); costs the deeper blocks.
        """
        pixels = self.preprocessing(image).to(self.dtype)
        structure, token = shallow_features(self.clip, pixels, PRESETS[self.preset], semantic=semantic)
        return structure.to(self.precise), None if token is None else token.to(self.precise)

    @property
    def embedding_size(self) -> int:
        """Length of a CLIP image embedding; ViT-B/32: 512."""
        return int(self.clip.output_dim)

    def features(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Structure, semantic feature and embedding of images (n, 3, H, H) in [0, 1], from one pass through CLIP."""
        pixels = self.preprocessing(image).to(self.dtype)
        structure, token, pooled = all_features(self.clip, pixels, PRESETS[self.preset])
        return structure.to(self.precise), token.to(self.precise), pooled.to(self.precise)

    def embed_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts in the space of CLIP's image embeddings, (n, embed_dim), of length 1; by CLIP's own text tower.

        The tower is read from its files when it is asked for, and not kept.

        Raises
        ------
        InputError
            There is none, or its tokenizer is not known.
        """
        from .text_tower import embed_text

        if self.clip_source is None:
            raise InputError("it is not known where the CLIP of these models comes from: open them with load_models")
        return embed_text(self.clip_source, texts)

    def embedding(self, image: torch.Tensor) -> torch.Tensor:
        """The CLIP image embedding (n, embed_dim), not normalised: the visual tower's final output."""
        output = self.clip(self.preprocessing(image).to(self.dtype))
        pooled: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return pooled.to(self.precise)


def vae_factor(config: Any) -> int:
    """How many pixels make one latent cell along a side; SD 1.4: 8."""
    return int(2 ** (len(config["block_out_channels"]) - 1))
