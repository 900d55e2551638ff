"""From files to :class:`Models`: every part read with its own library, offline, safetensors only, then frozen."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

from ..errors import FileError, InputError, check_choice
from .checks import check_architecture, check_folder
from .clip import find_clip, open_tower
from .hashing import hash_files
from .locate import locate
from .models import Models
from .noise import read_schedule
from .structure import PRESETS, check_tower


def build(name: str | Path, *, clip: str | Path | None, preset: str, device: str, dtype: str) -> Models:
    """See :func:`.open.load_models`. Everything that can be refused without reading weights is refused first."""
    check_choice("layer preset", preset, PRESETS)
    place, number = open_device(device), getattr(torch, dtype)
    if place.type == "mps" and number == torch.float64:
        raise InputError("device 'mps' has no float64: use device 'cpu' or dtype 'float32'")
    folder = locate(name)
    files: dict[str, Path | bytes] = {**check_folder(folder)}
    check_architecture(folder)
    schedule = read_schedule(folder / "scheduler" / "scheduler_config.json")
    source = find_clip(clip, folder)
    visual, preprocessing = open_tower(source)
    check_tower(visual, preset)
    parts = {part: _read(kind, folder / part, files, number) for part, kind in _PARTS.items()}
    tokenizer = _read_tokenizer(folder / "tokenizer", parts["text_encoder"].config.vocab_size)
    parts["clip"] = visual
    for part, module in parts.items():
        # diffusers has set the dtype of its own while reading, and warns when asked again.
        module.to(device=place, **({} if part in ("vae", "unet") else {"dtype": number}))
        module.eval().requires_grad_(False)
        if part in ("vae", "unet") and place.type != "mps":
            module.to(memory_format=torch.channels_last)  # convolutions are 5 to 15 % faster, on CPUs and tensor cores
    return Models(
        **parts,
        tokenizer=tokenizer,
        preprocessing=preprocessing,
        schedule=schedule,
        preset=preset,
        device=place,
        dtype=number,
        hash=hash_files(files | source.files),
        name=os.fspath(name),
        folder=folder,
    )


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


def _read(kind: Any, folder: Path, files: dict[str, Path | bytes], dtype: torch.dtype) -> Any:
    """Read one part; refuse weights that leave a parameter of the config unset."""
    half = any(str(name).startswith(f"{folder.name}/") and str(name).endswith(".fp16.safetensors") for name in files)
    options: dict[str, Any] = {"variant": "fp16"} if half else {}
    if kind is not CLIPTextModel:
        # diffusers would warn at each call when the optional accelerate is not installed.
        options["low_cpu_mem_usage"] = importlib.util.find_spec("accelerate") is not None
        options["torch_dtype"] = dtype
    try:
        with _quiet():
            model, report = kind.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, **options
            )
    except Exception as error:  # diffusers, transformers and safetensors each have their own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise FileError(
            f"{folder} cannot be opened ({type(error).__name__}: {reason}): its weights are damaged or do not fit its "
            "config, download it again"
        ) from error
    missing = sorted(report.get("missing_keys", ()))
    wrong = sorted(str(entry) for entry in report.get("mismatched_keys", ()))
    if missing or wrong:
        raise FileError(
            f"the weights in {folder} do not fit its config ({len(missing)} missing, {len(wrong)} of another shape, "
            f"first {(missing + wrong)[0]}): download it again"
        )
    return model


def _read_tokenizer(folder: Path, vocab_size: int) -> Any:
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers and tokenizers each have their own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise FileError(f"{folder} cannot be opened ({type(error).__name__}: {reason}): download it again") from error
    if len(tokenizer) > vocab_size:
        raise InputError(
            f"the tokenizer in {folder} has {len(tokenizer)} words, the text encoder {vocab_size}: "
            "take both from the same model"
        )
    return tokenizer


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars and loading reports; what matters in them is checked here."""
    voice: Any = logging  # half of it is untyped
    bars, level = voice.is_progress_bar_enabled(), voice.get_verbosity()
    voice.disable_progress_bar()
    voice.set_verbosity_error()
    try:
        yield
    finally:
        voice.set_verbosity(level)
        if bars:
            voice.enable_progress_bar()
