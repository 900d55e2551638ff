"""The CLIP visual tower that structure is read from: an open_clip folder, or a name such as ViT-B-32:openai."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg

from ..errors import FileError, InputError
from ..files import read_json
from .locate import hub_file
from .preprocess import KERNELS, Preprocessing

DEFAULT = "ViT-B-32:openai"
CONFIG = "open_clip_config.json"
# open_clip prefers these two to every pickled file beside them; other names would not be safe from that.
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """What `open_clip.create_model` gets, and the files (or contents) that decide what the model computes."""

    name: str
    pretrained: str | None
    quick_gelu: bool
    preprocess: dict[str, Any]
    files: dict[str, Path | bytes]


def find_clip(clip: str | Path | None, folder: Path) -> ClipSource:
    """Choose the CLIP.

    Parameters
    ----------
    clip
        A folder with open_clip_config.json and open_clip_model.safetensors; or ``"ARCHITECTURE:PRETRAINED"`` as
        open_clip lists them (weights from the hub's cache, or downloaded); or None: the `clip` folder inside
        `folder` if there is one, else ``"ViT-B-32:openai"``.
    folder
        The Stable Diffusion folder.
    """
    if clip is None:
        inside = folder / "clip"
        return _from_folder(inside) if inside.is_dir() else _from_name(DEFAULT)
    text = os.fspath(clip)
    path = Path(text.removeprefix("local-dir:")).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if isinstance(clip, Path) or path.exists() or text.startswith("local-dir:") or ":" not in text:
        raise FileError(
            f"the CLIP {text} is not a folder: pass an open_clip folder (with {CONFIG}), or a name such as {DEFAULT}"
        )
    return _from_name(text)


def _from_folder(folder: Path) -> ClipSource:
    config = read_json(folder / CONFIG, "the CLIP's config")
    model = config.get("model_cfg")
    if not isinstance(model, dict) or not {"vision_cfg", "text_cfg"} <= model.keys():
        raise InputError(f"{folder / CONFIG} has no model_cfg with vision_cfg and text_cfg: pass an open_clip folder")
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise FileError(
            f"the CLIP folder {folder} lacks {WEIGHTS[0]}: download it again (pickled weights are never read)"
        )
    return ClipSource(
        name=f"local-dir:{folder}",
        pretrained=None,
        quick_gelu=False,  # the folder's config says it
        preprocess={},
        files={f"clip/{CONFIG}": folder / CONFIG, f"clip/{weights.name}": weights},
    )


def _from_name(text: str) -> ClipSource:
    architecture, tag = text.split(":", 1)
    model = open_clip.get_model_config(architecture)
    if model is None:
        close = difflib.get_close_matches(architecture, open_clip.list_models(), 3) or ["ViT-B-32"]
        raise InputError(
            f"CLIP architecture {architecture!r} is unknown to open_clip: choose one such as {', '.join(close)}"
        )
    config = get_pretrained_cfg(architecture, tag)
    repository, _, name = str(config.get("hf_hub", "")).rpartition("/")
    if not repository:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise InputError(f"CLIP weights {tag!r} of {architecture} are unknown or not on the hub: choose one of {tags}")
    safe = [Path(name).with_suffix(".safetensors").name] if name else []
    weights = hub_file(repository, [*safe, *WEIGHTS])
    preprocess = {key: config[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in config}
    # open_clip only warns when weights trained with QuickGELU meet a config without it, and computes something else.
    quick_gelu = bool(config.get("quick_gelu", False))
    description = {"model_cfg": model | {"quick_gelu": quick_gelu}, "preprocess_cfg": preprocess}
    return ClipSource(
        name=architecture,
        pretrained=str(weights),
        quick_gelu=quick_gelu,
        preprocess=preprocess,
        files={f"clip/{CONFIG}": json.dumps(description, sort_keys=True).encode(), f"clip/{weights.name}": weights},
    )


def open_tower(source: ClipSource) -> tuple[Any, Preprocessing]:
    """Open the visual tower (float32, on the CPU) and its preprocessing."""
    try:
        model = open_clip.create_model(
            source.name,
            source.pretrained,
            force_quick_gelu=source.quick_gelu,
            force_preprocess_cfg=source.preprocess,
            pretrained_text=False,
            require_pretrained=True,
        )
    except Exception as error:  # open_clip, torch and safetensors each have their own
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            f"the CLIP {source.name} cannot be opened ({type(error).__name__}: {reason}): its weights are damaged or "
            "do not fit its config, download it again"
        ) from error
    return model.visual, _preprocessing(model.visual)


def _preprocessing(visual: torch.nn.Module) -> Preprocessing:
    config: dict[str, Any] = visual.preprocess_cfg  # type: ignore[assignment]
    size, interpolation = config["size"], config["interpolation"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise InputError(f"the CLIP takes images of {height} x {width} pixels, expected a square: use another CLIP")
    if interpolation not in KERNELS:
        raise InputError(
            f"the CLIP's preprocessing resizes by {interpolation!r}, expected bicubic or bilinear: use another"
        )
    mean, std = ((float(v[0]), float(v[1]), float(v[2])) for v in (config["mean"], config["std"]))
    return Preprocessing(size=int(height), mean=mean, std=std, interpolation=interpolation)
