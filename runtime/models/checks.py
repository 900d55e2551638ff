"""Whether a folder holds models of the Stable Diffusion 1.x kind: told from the configs, before any weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import FileError, InputError
from ..files import read_json
from .models import N_TOKENS

WEIGHTS = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model", "text_encoder": "model"}
_ADVICE = "use a model of the Stable Diffusion 1.x family, such as CompVis/stable-diffusion-v1-4"
_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json")
_TOKENIZER_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def check_folder(folder: Path) -> dict[str, Path]:
    """Refuse a folder that is not whole.

    Returns
    -------
    dict
        Relative name -> path of every file that decides what the models compute (what the hash is over).
    """
    files: dict[str, Path] = {}
    for part in WEIGHTS:
        _add(files, folder, f"{part}/config.json")
        weights = find_weights(folder / part, WEIGHTS[part])
        files[f"{part}/{weights.name}"] = weights
    _add(files, folder, "scheduler/scheduler_config.json")
    _part(folder, "tokenizer")
    here = {name: folder / "tokenizer" / name for name in (*_TOKENIZER_FILES, *_TOKENIZER_CONFIGS)}
    here = {name: path for name, path in here.items() if path.is_file()}
    if not {"vocab.json", "merges.txt"} <= here.keys():
        raise _missing(folder, "tokenizer/vocab.json and tokenizer/merges.txt")
    files |= {f"tokenizer/{name}": path for name, path in here.items()}
    return files


def find_weights(folder: Path, stem: str) -> Path:
    """The safetensors file of a part, full precision before half."""
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (folder / name).is_file():
            return folder / name
    if any(folder.glob("*.bin")) or any(folder.glob("*.ckpt")):
        raise FileError(
            f"{folder} holds pickled weights only, which are never read, expected {stem}.safetensors: "
            "download the safetensors"
        )
    raise _missing(folder.parent, f"{folder.name}/{stem}.safetensors")


def _add(files: dict[str, Path], folder: Path, name: str) -> None:
    _part(folder, name.split("/")[0])
    if not (folder / name).is_file():
        raise _missing(folder, name)
    files[name] = folder / name


def _part(folder: Path, part: str) -> None:
    if not (folder / part).is_dir():
        raise _missing(folder, f"{part}/")


def _missing(folder: Path, name: str) -> FileError:
    return FileError(
        f"the model folder {folder} lacks {name}: expected a whole diffusers folder (vae, unet, text_encoder, "
        "tokenizer, scheduler), download it again"
    )


def check_architecture(folder: Path) -> None:
    """Refuse configs that do not make a text-conditioned latent diffusion model whose parts fit together."""
    vae, unet, text = (read_json(folder / part / "config.json", f"the {part}'s config") for part in WEIGHTS)
    _check_class(folder, "vae", vae, "AutoencoderKL")
    _check_class(folder, "unet", unet, "UNet2DConditionModel")
    if not any("CrossAttn" in str(kind) for kind in unet.get("down_block_types") or ["CrossAttn"]):
        raise InputError(f"the UNet in {folder / 'unet'} has no cross-attention to a text: {_ADVICE}")
    if unet.get("addition_embed_type") or unet.get("class_embed_type") or unet.get("encoder_hid_dim_type"):
        raise InputError(f"the UNet in {folder / 'unet'} wants more than a text, as SDXL does: {_ADVICE}")
    channels = vae.get("latent_channels", 4)
    given = (unet.get("in_channels", 4), unet.get("out_channels", 4))
    if given != (channels, channels):
        raise InputError(
            f"the UNet in {folder / 'unet'} takes {given[0]} and gives {given[1]} channels, the VAE's latents have "
            f"{channels}: {_ADVICE}"
        )
    side = unet.get("sample_size")
    if not isinstance(side, int) or side < 1:
        raise InputError(f"the UNet in {folder / 'unet'} has sample_size {side!r}, expected one number: {_ADVICE}")
    _check_text(folder, unet, text)


def _check_class(folder: Path, part: str, config: dict[str, Any], expected: str) -> None:
    given = config.get("_class_name")
    if given != expected:
        raise InputError(f"{folder / part} is a {given}, expected {expected}: {_ADVICE}")


def _check_text(folder: Path, unet: dict[str, Any], text: dict[str, Any]) -> None:
    where = folder / "text_encoder"
    if text.get("model_type") != "clip_text_model":
        raise InputError(f"{where} holds a {text.get('model_type')!r}, expected a 'clip_text_model': {_ADVICE}")
    wanted, given = unet.get("cross_attention_dim", 1280), text.get("hidden_size", 512)
    if wanted != given:
        raise InputError(
            f"the text encoder in {where} has width {given}, the UNet's cross-attention takes {wanted}: "
            "take both from the same model"
        )
    positions = text.get("max_position_embeddings", 77)
    if positions < N_TOKENS:
        raise InputError(
            f"the text encoder in {where} takes {positions} tokens, expected at least {N_TOKENS}: {_ADVICE}"
        )
