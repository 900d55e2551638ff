"""The CLIP visual tower that structure is read from: an open_clip folder, or a name such as ViT-B-32:openai."""

from __future__ import annotations

import copy
import difflib
import json
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg
from safetensors import safe_open

from ..data.json_types import is_number
from ..errors import FileError, InputError, shown
from ..fields import ABSENT
from ..files import read_json
from ..resampling import KERNELS
from .contents import ONE_FILE, check_readable, naming_permissions
from .fields import check_types, hints_of, refuse
from .locate import HUB, LOCAL, hub_file
from .preprocess import Preprocessing
from .structure import check_tower

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
    model: dict[str, Any]
    weights: Path


def find_clip(clip: str | Path | None, folder: Path) -> ClipSource:
    """Choose the CLIP.

    Parameters
    ----------
    clip
        A folder with open_clip_config.json and open_clip_model.safetensors, with or without ``local-dir:`` before it;
        ``"ARCHITECTURE:PRETRAINED"`` as open_clip lists them, or ``"hf-hub:OWNER/NAME"`` (from the hub's cache, or
        downloaded); or None: the `clip` folder inside `folder` if there is one, else ``"ViT-B-32:openai"``.
    folder
        The Stable Diffusion folder.
    """
    with naming_permissions():
        return _find(clip, folder)


def _find(clip: str | Path | None, folder: Path) -> ClipSource:
    if clip is None:
        inside = folder / "clip"
        return _from_folder(inside) if inside.is_dir() else _from_name(DEFAULT)
    text = os.fspath(clip)
    if text.startswith(HUB):
        return _from_folder(_from_hub(text.removeprefix(HUB)))
    path = Path(text.removeprefix(LOCAL)).expanduser()
    if path.is_dir():
        return _from_folder(path)
    if path.is_file() and path.suffix in ONE_FILE:
        raise FileError(
            f"the CLIP {text} is one file, which does not say its architecture or preprocessing: pass a folder that "
            f"holds it as {WEIGHTS[0]} beside its {CONFIG}, or a name such as {DEFAULT}"
        )
    if isinstance(clip, Path) or path.exists() or text.startswith(LOCAL) or ":" not in text:
        raise FileError(
            f"the CLIP {text} is not a folder: pass an open_clip folder (with {CONFIG}), or a name such as {DEFAULT}"
        )
    return _from_name(text)


def _from_hub(repository: str) -> Path:
    """The folder of the hub's cache in which the config and the weights of `repository` lie."""
    config = hub_file(repository, [CONFIG])
    hub_file(repository, WEIGHTS)
    return config.parent


def _from_folder(folder: Path) -> ClipSource:
    path = folder / CONFIG
    if not path.is_file() and (folder / "config.json").is_file():
        raise FileError(
            f"the CLIP folder {folder} has a config.json and no {CONFIG}, as transformers saves a CLIP: pass "
            f"open_clip's own, by a name such as {DEFAULT}, or hf-hub:timm/vit_base_patch32_clip_224.openai"
        )
    if path.is_file():
        check_readable(path)
    config = read_json(path, "the CLIP's config")
    model = config.get("model_cfg")
    if not isinstance(model, dict) or not {"vision_cfg", "text_cfg"} <= model.keys():
        raise InputError(f"{path} has no model_cfg with vision_cfg and text_cfg: pass an open_clip folder")
    check_config(path, model, config.get("preprocess_cfg", ABSENT))
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise FileError(
            f"the CLIP folder {folder} lacks {WEIGHTS[0]}: download it again (pickled weights are never read)"
        )
    check_readable(weights)
    return ClipSource(
        name=f"local-dir:{folder}",
        pretrained=None,
        quick_gelu=False,  # the folder's config says it
        preprocess={},
        files={f"clip/{CONFIG}": path, f"clip/{weights.name}": weights},
        model=model,
        weights=weights,
    )


def check_config(path: Path, model: dict[str, Any], preprocess: Any) -> None:
    """Refuse fields of another type, and normalisation that open_clip would fill in with OpenAI's unasked."""
    check_types(path, model, hints_of(open_clip.CLIP.__init__) | {"vision_cfg": dict, "text_cfg": dict}, "model_cfg.")
    if "embed_dim" not in model:
        refuse(path, "model_cfg.embed_dim", ABSENT, "a whole number")
    vision = hints_of(open_clip.CLIPVisionCfg) | {"patch_size": int | None, "timm_proj": str | None}
    # Both are null in open_clip's own configs of other towers.
    check_types(path, model["vision_cfg"], vision, "model_cfg.vision_cfg.")
    check_types(path, model["text_cfg"], hints_of(open_clip.CLIPTextCfg), "model_cfg.text_cfg.")
    if not isinstance(preprocess, dict):
        refuse(path, "preprocess_cfg", preprocess, "an object with the mean and std that the CLIP was trained with")
    for name in ("mean", "std"):
        values = preprocess.get(name, ABSENT)
        if not isinstance(values, list) or len(values) != 3 or not all(map(is_number, values)):
            refuse(path, f"preprocess_cfg.{name}", values, "three numbers, those that the CLIP was trained with")
    if min(preprocess["std"]) <= 0:
        refuse(path, "preprocess_cfg.std", preprocess["std"], "three numbers above 0")
    if preprocess.get("mode") not in (None, "RGB"):
        refuse(path, "preprocess_cfg.mode", preprocess["mode"], "'RGB'")
    tower, size = model["vision_cfg"].get("image_size", 224), preprocess.get("size")
    if size is not None and _both(size) != _both(tower):
        refuse(path, "preprocess_cfg.size", size, f"{shown(tower)}, the image_size of its vision_cfg")
    if preprocess.get("interpolation") not in (None, *KERNELS):
        refuse(path, "preprocess_cfg.interpolation", preprocess["interpolation"], f"one of {', '.join(KERNELS)}")


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
        model=description["model_cfg"],
        weights=weights,
    )


def open_tower(source: ClipSource) -> tuple[Any, Preprocessing]:
    """Open the visual tower (float32, on the CPU) and its preprocessing."""
    visual = open_whole(source).visual
    return visual, _preprocessing(visual)


def open_whole(source: ClipSource) -> Any:
    """Open both towers of a CLIP, float32, on the CPU."""
    try:
        return open_clip.create_model(
            source.name,
            source.pretrained,
            force_quick_gelu=source.quick_gelu,
            force_preprocess_cfg=source.preprocess,
            pretrained_text=False,
            require_pretrained=True,
        )
    except Exception as error:  # open_clip, torch and safetensors each have their own
        raise _unfit(source, error) from error


def check_clip(source: ClipSource, preset: str) -> None:
    """Refuse a CLIP whose tower lacks the features of `preset`, or that is larger than its weights; reads no weights.

    It is made on PyTorch's meta device, without numbers: open_clip would fill memory before it compares.
    """
    if {"timm_model_name", "hf_model_name"} & {*source.model["vision_cfg"], *source.model["text_cfg"]}:
        return  # towers of other libraries are theirs to make; `check_tower` has its say on them when they are open
    model = {name: value for name, value in copy.deepcopy(source.model).items() if name != "custom_text"}
    kind = open_clip.CustomTextCLIP if source.model.get("custom_text") else open_clip.CLIP
    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            network = kind(**model)
        with safe_open(source.weights, "pt") as file:
            held = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    except Exception as error:
        raise _unfit(source, error) from error
    check_tower(network.visual, preset)
    needed = sum(value.numel() for value in network.parameters())
    if needed > held:
        raise InputError(
            f"the CLIP {source.name} cannot be opened: its weights hold {held} numbers, its config makes a network of "
            f"{needed}: take both from the same download"
        )


def _unfit(source: ClipSource, error: Exception) -> InputError:
    reason = str(error).strip().splitlines() or ["no reason given"]
    return InputError(
        f"the CLIP {source.name} cannot be opened ({type(error).__name__}: {reason[-1].strip()}): its weights are "
        "damaged or do not fit its config, download it again"
    )


def _both(size: Any) -> Any:
    return size if isinstance(size, list | tuple) else [size, size]


def _square(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise InputError(f"the CLIP takes images of {height} x {width} pixels, expected a square: use another CLIP")
    return height, width


def _preprocessing(visual: torch.nn.Module) -> Preprocessing:
    config: dict[str, Any] = visual.preprocess_cfg  # type: ignore[assignment]
    interpolation, (height, _) = config["interpolation"], _square(config["size"])
    if interpolation not in KERNELS:
        raise InputError(
            f"the CLIP's preprocessing resizes by {interpolation!r}, expected bicubic or bilinear: use another"
        )
    mean, std = ((float(v[0]), float(v[1]), float(v[2])) for v in (config["mean"], config["std"]))
    return Preprocessing(size=int(height), mean=mean, std=std, interpolation=interpolation)
