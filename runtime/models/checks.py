"""Whether a folder holds models of the Stable Diffusion 1.x kind, by its configs, before any weight is read."""

from __future__ import annotations

import inspect
from collections.abc import Container
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig

from ..data.json_types import is_number
from ..errors import InputError
from ..features import N_TOKENS
from ..files import read_json
from .fields import check_types, hints_of, refuse
from .models import vae_factor

_ADVICE = "use a model of the Stable Diffusion 1.x family, such as CompVis/stable-diffusion-v1-4"
_LARGEST_SIDE = 512
_TEXT_TYPES: dict[str, Any] = {
    "vocab_size": int,
    "hidden_size": int,
    "intermediate_size": int,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "max_position_embeddings": int,
    "hidden_act": str,
    "layer_norm_eps": float,
    "attention_dropout": float,
}
# Stable Diffusion's own files have them; no CLIP text encoder reads them, or it does by another name today.
_TEXT_BYGONE = ("dropout", "torch_dtype")
# What a pipeline other than Stable Diffusion 1.x's would do between latent and VAE, or feed the UNet besides a text.
_VAE_NEUTRAL = {"shift_factor": (None, 0), "latents_mean": (None,), "latents_std": (None,)}
_UNET_NEUTRAL = {
    "addition_embed_type": (None,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim_type": (None,),
    "encoder_hid_dim": (None,),
    "time_cond_proj_dim": (None,),
    "attention_type": ("default",),
}


def check_architecture(folder: Path) -> tuple[str, ...]:
    """Refuse configs that do not make a text-conditioned latent diffusion model whose parts fit together.

    Returns
    -------
    tuple of str
        Sentences for the user about fields that are not what they usually are.
    """
    vae = _read(folder / "vae", AutoencoderKL)
    unet = _read(folder / "unet", UNet2DConditionModel)
    text = read_json(folder / "text_encoder" / "config.json", "the text_encoder's config")
    _check_unet(folder / "unet" / "config.json", unet)
    _check_vae(folder / "vae" / "config.json", vae)
    _check_fit(folder, vae, unet)
    _check_text(folder / "text_encoder" / "config.json", unet, text)
    return (
        *_unknown_fields(folder / "vae" / "config.json", vae, AutoencoderKL),
        *_unknown_fields(folder / "unet" / "config.json", unet, UNet2DConditionModel),
        *_unknown_text_fields(folder / "text_encoder" / "config.json", text),
        *_about_size(folder, vae, unet),
    )


def _read(part: Path, kind: Any) -> dict[str, Any]:
    """The part's config, with the defaults of its class for what is absent."""
    path = part / "config.json"
    config = read_json(path, f"the {part.name}'s config")
    given = config.get("_class_name")
    if given != kind.__name__:
        raise InputError(f"{part} is a {given}, expected {kind.__name__}: {_ADVICE}")
    _refuse_quantization(path, config)
    check_types(path, config, hints_of(kind.__init__))
    parameters = inspect.signature(kind.__init__).parameters
    return {name: parameter.default for name, parameter in parameters.items() if name != "self"} | config


def _refuse_quantization(path: Path, config: dict[str, Any]) -> None:
    if config.get("quantization_config") is not None:
        refuse(path, "quantization_config", config["quantization_config"], "weights as they were trained", _ADVICE)


def _check_unet(path: Path, unet: dict[str, Any]) -> None:
    if not any("CrossAttn" in kind for kind in unet["down_block_types"]):
        raise InputError(f"the UNet in {path.parent} has no cross-attention to a text: {_ADVICE}")
    for field, neutral in _UNET_NEUTRAL.items():
        if unet.get(field, neutral[0]) not in neutral:
            raise InputError(
                f"the UNet in {path.parent} needs more than a text, as SDXL does ({field} {unet[field]!r}): {_ADVICE}"
            )
    side = unet["sample_size"]
    if not isinstance(side, int) or not 1 <= side <= _LARGEST_SIDE:
        raise InputError(
            f"the UNet in {path.parent} has sample_size {side!r}, expected one number from 1 to {_LARGEST_SIDE}: "
            f"{_ADVICE}"
        )


def _check_vae(path: Path, vae: dict[str, Any]) -> None:
    for field, neutral in _VAE_NEUTRAL.items():
        if vae.get(field) not in neutral:
            refuse(path, field, vae[field], "null, as in Stable Diffusion 1.x, which has no such step", _ADVICE)
    if not is_number(vae["scaling_factor"]) or not vae["scaling_factor"] > 0:
        refuse(path, "scaling_factor", vae["scaling_factor"], "a number above 0")
    if (vae["in_channels"], vae["out_channels"]) != (3, 3):
        raise InputError(
            f"the VAE in {path.parent} takes {vae['in_channels']} and gives {vae['out_channels']} channels, expected "
            f"the 3 of an RGB image: {_ADVICE}"
        )


def _check_fit(folder: Path, vae: dict[str, Any], unet: dict[str, Any]) -> None:
    channels, given = vae["latent_channels"], (unet["in_channels"], unet["out_channels"])
    if given != (channels, channels):
        raise InputError(
            f"the UNet in {folder / 'unet'} takes {given[0]} and gives {given[1]} channels, the VAE's latents have "
            f"{channels}: {_ADVICE}"
        )


def _check_text(path: Path, unet: dict[str, Any], text: dict[str, Any]) -> None:
    if text.get("model_type") != "clip_text_model":
        raise InputError(f"{path.parent} holds a {text.get('model_type')!r}, expected a 'clip_text_model': {_ADVICE}")
    _refuse_quantization(path, text)
    check_types(path, text, _TEXT_TYPES)
    wanted, given = unet["cross_attention_dim"], text.get("hidden_size", 512)
    if wanted != given:
        raise InputError(
            f"the text encoder in {path.parent} has width {given}, the UNet's cross-attention takes {wanted}: "
            "take both from the same model"
        )
    positions = text.get("max_position_embeddings", 77)
    if positions < N_TOKENS:
        raise InputError(
            f"the text encoder in {path.parent} takes {positions} tokens, expected at least {N_TOKENS}: {_ADVICE}"
        )


def _unknown_fields(path: Path, config: dict[str, Any], kind: Any) -> list[str]:
    return _left_out(path, config, inspect.signature(kind.__init__).parameters, "diffusers")


def _unknown_text_fields(path: Path, config: dict[str, Any]) -> list[str]:
    return _left_out(path, config, {*CLIPTextConfig().to_dict(), *_TEXT_BYGONE}, "transformers")


def _left_out(path: Path, config: dict[str, Any], known: Container[str], library: str) -> list[str]:
    unknown = sorted(name for name in config if name not in known and not name.startswith("_"))
    if not unknown:
        return []
    return [
        f"{path} has {', '.join(unknown)}, which the installed {library} does not know and leaves out: "
        f"check the spelling, or update {library} if the model's page asks for it"
    ]


def _about_size(folder: Path, vae: dict[str, Any], unet: dict[str, Any]) -> list[str]:
    side, notes = unet["sample_size"] * vae_factor(vae), []
    if vae["sample_size"] != side:
        notes.append(
            f"pictures have {side} pixels, by sample_size {unet['sample_size']} of the UNet in {folder}; its VAE names "
            f"sample_size {vae['sample_size']}, which is not used"
        )
    return notes
