"""Stable Diffusion 1.4 and ViT-B/32 at full size, random weights, in the very files that the hub holds.

Run with: pytest -m full_size tests/runtime/models/test_full_size.py   (8 GB of memory, 6 GB of disk, minutes)
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from minddiffuser.runtime.models.open import load_models
from minddiffuser.training.tinyworld.tokens import write_tokenizer

UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
TEXT = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "torch_dtype": "float32",
    "transformers_version": "4.21.0.dev0",
    "vocab_size": 49408,
}
CLIP = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}
# Names that the VAE's two attention blocks had when the weights were published.
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith("_")}


def save(folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor], name: str) -> None:
    from small_world import write_json

    write_json(folder / "config.json", config)
    solid = {key: value.detach().contiguous() for key, value in weights.items()}
    save_file(solid, folder / f"{name}.safetensors", metadata={"format": "pt"})


def write_vae(folder: Path) -> None:
    weights = {}
    for key, value in AutoencoderKL(**settings(VAE)).state_dict().items():
        for new, old in OLD_NAMES.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        weights[key] = value
    assert "encoder.mid_block.attentions.0.query.weight" in weights
    save(folder, VAE, weights, "diffusion_pytorch_model")


def write_text_encoder(folder: Path) -> None:
    model = CLIPTextModel(CLIPTextConfig(**{k: v for k, v in settings(TEXT).items() if k != "torch_dtype"}))
    weights = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in model.state_dict().items()}
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save(folder, TEXT, weights, "model")


def write_sd_tokenizer(folder: Path) -> None:
    """The files of SD 1.4's tokenizer folder, over another vocabulary."""
    from small_world import write_json

    write_tokenizer(folder)
    (folder / "tokenizer.json").unlink()

    def added(content: str) -> dict[str, Any]:
        flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        return {"content": content, **flags}

    start, end = added("<|startoftext|>"), added("<|endoftext|>")
    special = {"bos_token": start, "eos_token": end, "pad_token": "<|endoftext|>", "unk_token": end}
    write_json(folder / "special_tokens_map.json", special)
    typed = {k: {"__type": "AddedToken", **v} if isinstance(v, dict) else v for k, v in special.items()}
    rest = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77}
    names = {"special_tokens_map_file": "./special_tokens_map.json", "tokenizer_class": "CLIPTokenizer"}
    write_json(folder / "tokenizer_config.json", {**rest, **names, **typed})


def write_full_size(folder: Path, clip: Path) -> None:
    from small_world import MODEL_INDEX, SCHEDULER, write_clip, write_json

    torch.manual_seed(0)
    write_json(folder / "model_index.json", MODEL_INDEX)
    write_json(folder / "scheduler/scheduler_config.json", SCHEDULER)
    write_sd_tokenizer(folder / "tokenizer")
    write_vae(folder / "vae")
    write_text_encoder(folder / "text_encoder")
    save(folder / "unet", UNET, UNet2DConditionModel(**settings(UNET)).state_dict(), "diffusion_pytorch_model")
    gc.collect()
    mean, std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    write_clip(clip, CLIP, {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"})
    gc.collect()


@pytest.mark.full_size
@pytest.mark.timeout(7200)
def test_stable_diffusion_opens_through_the_same_door(tmp_path: Path, small_world: Path) -> None:
    folder, clip = tmp_path / "stable-diffusion-v1-4", tmp_path / "ViT-B-32"
    write_full_size(folder, clip)
    models = load_models(folder, clip=f"local-dir:{clip}")
    count = {
        name: sum(parameter.numel() for parameter in getattr(models, name).parameters())
        for name in ("unet", "vae", "text_encoder", "clip")
    }
    assert count == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480, "clip": 87_849_216}
    assert (models.image_size, models.scaling_factor) == (512, 0.18215)
    assert models.preprocessing.mean == OPENAI_DATASET_MEAN
    assert type(models.clip.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"

    context = models.encode_text(["a red cat in the sea"])
    image = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latent = models.encode_latent(image)
        noise = models.predict_noise(latent, 741, context)
        decoded = models.decode_latent(latent - noise)
        structure, semantic = models.structure(decoded, semantic=True)
        embedding = models.embedding(decoded)
    assert context.shape == (1, *models.context_shape) == (1, 15, 768)
    assert latent.shape == noise.shape == (1, *models.latent_shape) == (1, 4, 64, 64)
    assert decoded.shape == (1, 3, 512, 512)
    assert structure.shape == (1, *models.structure_shape) == (1, 6, 50, 768)
    assert semantic is not None
    assert (semantic.shape, embedding.shape) == ((1, 768), (1, 512))
    for tensor in (context, latent, noise, decoded, structure, semantic, embedding):
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all()
        assert tensor.std() > 0
