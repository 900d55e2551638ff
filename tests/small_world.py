"""A model folder in the real layout, with random weights and shapes so small that any test can afford it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from open_clip import CLIP
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from minddiffuser.training.tinyworld.tokens import N_TOKENS, write_tokenizer

IMAGE_SIZE = 32
LATENT_SHAPE = (4, 4, 4)
TEXT_WIDTH = 16
CLIP_WIDTH, CLIP_BLOCKS, CLIP_TOKENS, CLIP_EMBEDDING = 32, 12, 17, 16

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.2.2",
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.7.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def write_small_world(folder: Path, seed: int = 0) -> Path:
    """Write the folder (about 1 MB) and return it; another `seed` gives other weights of the same shapes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "model_index.json", MODEL_INDEX)
        write_json(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
        tokenizer = write_tokenizer(folder / "tokenizer")
        _vae().save_pretrained(folder / "vae")
        _unet().save_pretrained(folder / "unet")
        _text_encoder(tokenizer).save_pretrained(folder / "text_encoder")
        write_clip(folder / "clip", clip_config(vocab_size=len(tokenizer)))
        tokenizer.save_pretrained(folder / "clip")
    return folder


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def clip_config(*, vocab_size: int = 64, **vision: Any) -> dict[str, Any]:
    """The `model_cfg` of the small CLIP; `vision` overrides entries of its visual tower."""
    tower = {"image_size": IMAGE_SIZE, "layers": CLIP_BLOCKS, "width": CLIP_WIDTH, "head_width": 16, "patch_size": 8}
    text = {"context_length": N_TOKENS, "vocab_size": vocab_size, "width": 16, "heads": 2, "layers": 1}
    return {
        "embed_dim": CLIP_EMBEDDING,
        "vision_cfg": tower | vision,
        "text_cfg": text | {"hf_tokenizer_name": "tokenizer"},
    }


def write_clip(folder: Path, config: dict[str, Any], preprocess: dict[str, Any] | None = None) -> CLIP:
    """Write an open_clip folder with random weights and return the model; torch's global seed decides them."""
    default = {"mean": [0.5, 0.4, 0.6], "std": [0.25, 0.2, 0.3], "interpolation": "bicubic", "resize_mode": "shortest"}
    model = CLIP(**config)
    write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": preprocess or default})
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    return model


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=IMAGE_SIZE,
        scaling_factor=0.5,
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT_SHAPE[-1],
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=8,
    )


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=N_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
