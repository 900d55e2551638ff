"""From files to :class:`Models`: every part read with its own library, offline, safetensors only, then frozen."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from ..errors import FileError, InputError, check_choice
from .checks import check_architecture
from .clip import check_clip, find_clip, open_tower
from .contents import Weights, find_contents
from .hashing import hash_files
from .locate import locate
from .models import Models
from .noise_schedule import read_schedule
from .quiet import first_line, quiet
from .smoke import try_networks
from .structure import PRESETS, check_tower
from .tokenizer import read_tokenizer


def build(name: str | Path, *, clip: str | Path | None, preset: str, device: str, dtype: str) -> Models:
    """See :func:`.open.load_models`. Everything that can be refused without reading weights is refused first."""
    check_choice("layer preset", preset, PRESETS)
    place, number = open_device(device), getattr(torch, dtype)
    if place.type == "mps" and number == torch.float64:
        raise InputError("device 'mps' has no float64: use device 'cpu' or dtype 'float32'")
    folder = locate(name)
    contents = find_contents(folder)
    notes = check_architecture(folder)
    schedule = read_schedule(folder / "scheduler" / "scheduler_config.json")
    source = find_clip(clip, folder)
    check_clip(source, preset)
    visual, preprocessing = open_tower(source)
    check_tower(visual, preset)
    parts = {part: _read(kind, folder / part, contents.weights[part], number) for part, kind in _PARTS.items()}
    tokenizer = read_tokenizer(folder / "tokenizer", parts["text_encoder"].config.vocab_size)
    parts["clip"] = visual
    for part, module in parts.items():
        # diffusers has set the dtype of its own while reading, and warns when asked again.
        module.to(device=place, **({} if part in ("vae", "unet") else {"dtype": number}))
        module.eval().requires_grad_(False)
        if part in ("vae", "unet") and place.type != "mps":
            module.to(memory_format=torch.channels_last)  # convolutions are 5 to 15 % faster, on CPUs and tensor cores
    models = Models(
        **parts,
        tokenizer=tokenizer,
        preprocessing=preprocessing,
        schedule=schedule,
        preset=preset,
        device=place,
        dtype=number,
        hash=hash_files({**contents.files, **source.files}),
        name=os.fspath(name),
        folder=folder,
        notes=(*notes, *schedule.notes),
        clip_source=source,
    )
    try_networks(models)
    return models


_PARTS: dict[str, Any] = {"vae": AutoencoderKL, "unet": UNet2DConditionModel, "text_encoder": CLIPTextModel}


def open_device(device: str) -> torch.device:
    """Turn 'cpu', 'cuda', 'cuda:1' or 'mps' into a device; InputError when this machine does not have it."""
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise InputError(f"device {device!r} is unknown: choose cpu, cuda, cuda:N or mps")
    kind, _, index = device.partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise InputError(
                f"device {device!r} is not there, PyTorch sees {count} CUDA devices: use cpu or a smaller number"
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps' is not there (Apple silicon with PyTorch's Metal backend): use cpu")
    return torch.device(device)


def _read(kind: Any, folder: Path, weights: Weights, dtype: torch.dtype) -> Any:
    """Read one part; refuse weights that leave a parameter of the config unset, or that the config leaves unused."""
    options: dict[str, Any] = {"variant": weights.variant} if weights.variant else {}
    if kind is CLIPTextModel:
        # Else the text encoder is rounded to the dtype that its config names, before it gets the one asked for.
        options["dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"] = dtype
    else:
        # diffusers would warn at each call when the optional accelerate is not installed.
        options["low_cpu_mem_usage"] = importlib.util.find_spec("accelerate") is not None
        options["torch_dtype"] = dtype
    try:
        with quiet():
            model, report = kind.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, **options
            )
    except Exception as error:  # diffusers, transformers and safetensors each have their own
        raise FileError(
            f"{folder} cannot be opened ({type(error).__name__}: {first_line(error)}): its weights are damaged or do "
            "not fit its config, download it again"
        ) from error
    missing, unused = (sorted(report.get(f"{kind}_keys") or ()) for kind in ("missing", "unexpected"))
    wrong = sorted(str(entry) for entry in report.get("mismatched_keys") or ())
    if missing or wrong or unused:
        raise FileError(
            f"the weights in {folder} do not fit its config ({len(missing)} missing, {len(wrong)} of another shape, "
            f"{len(unused)} that the config leaves unused, first {(missing + wrong + unused)[0]}): take both from the "
            "same download"
        )
    return model
