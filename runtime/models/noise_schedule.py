"""The noise schedule that a model was trained with, from its scheduler_config.json."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.json_types import is_number
from ..errors import InputError, shown
from ..fields import ABSENT
from ..files import read_json
from .fields import check_types, refuse

_ADVICE = "use a model of the Stable Diffusion 1.x family, such as CompVis/stable-diffusion-v1-4"
# Samplers of diffusers over one and the same kind of training: a table of betas, and a network that predicts the noise.
# DDIM runs over each of them; any other class may stand for another training (flow matching, consistency, EDM).
_SAME_TRAINING = (
    "DDIMScheduler",
    "PNDMScheduler",
    "DDPMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
)
# What Stable Diffusion 1.x itself is published with: sampling with DDIM needs no remark.
_USUAL = ("DDIMScheduler", "PNDMScheduler")
# What belongs to the training and not to the sampler; absent fields have the defaults of the file's own class.
_TRAINED = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
# Fields that change the mathematics; anything but these values would need another sampler. Absent is fine, also for
# clip_sample, whose default is true: StableDiffusionPipeline turns that off, since latents go far beyond [-1, 1].
_EXPECTED = {
    "prediction_type": ("epsilon", _ADVICE),
    "rescale_betas_zero_snr": (False, _ADVICE),
    "use_flow_sigmas": (False, _ADVICE),
    "timestep_type": ("discrete", _ADVICE),
    "timestep_spacing": ("leading", "change it in the file to sample on the usual grid of timesteps"),
    "clip_sample": (False, "change it in the file, as diffusers' StableDiffusionPipeline does when it reads it"),
    "thresholding": (False, "change it in the file, which is not made for latents"),
}
_TYPES = {
    "num_train_timesteps": int,
    "beta_start": float,
    "beta_end": float,
    "beta_schedule": str,
    "prediction_type": str,
    "timestep_spacing": str,
    "steps_offset": int,
    "set_alpha_to_one": bool,
    "clip_sample": bool,
    "thresholding": bool,
    "rescale_betas_zero_snr": bool,
    "use_flow_sigmas": bool,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseSchedule:
    """What a sampler needs: `alphas_cumprod` (n_train_steps,) float64 and diffusers' two conventions.

    SD 1.4: scaled-linear betas 0.00085 to 0.012, 1000 steps, `steps_offset` 1, `set_alpha_to_one` False.
    `notes` are sentences for the user about what the file says and DDIM does otherwise.
    """

    alphas_cumprod: NDArray[np.float64]
    steps_offset: int
    set_alpha_to_one: bool
    notes: tuple[str, ...] = ()


def read_schedule(path: Path) -> NoiseSchedule:
    """Read scheduler_config.json: what diffusers' DDIMScheduler makes of the same file.

    Except for betas and timesteps that the file leaves out: they belong to the training, so they are the defaults of
    the class that the file names, and a note says so.

    Raises
    ------
    InputError
        A field is not of its type, or the model wants something that DDIM over its betas does not do: the field by
        name.
    """
    config = read_json(path, "the scheduler's config")
    kind = config.get("_class_name", ABSENT)
    if kind not in _SAME_TRAINING:
        refuse(path, "_class_name", kind, "a scheduler that DDIM can stand in for, such as PNDMScheduler", _ADVICE)
    check_types(path, config, _TYPES)
    for field, (expected, advice) in _EXPECTED.items():
        if config.get(field, expected) not in (expected, None):
            raise InputError(f"{path} says {field} {config[field]!r}, expected {expected!r}: {advice}")
    alphas = np.cumprod(1 - _betas(config, path), dtype=np.float64)
    alphas.setflags(write=False)
    offset = config.get("steps_offset", 0)
    if offset >= len(alphas):
        refuse(path, "steps_offset", offset, f"less than the {len(alphas)} trained timesteps")
    return NoiseSchedule(
        alphas_cumprod=alphas,
        steps_offset=offset,
        set_alpha_to_one=bool(config.get("set_alpha_to_one", True)),
        notes=_notes(path, config),
    )


def _notes(path: Path, config: dict[str, Any]) -> tuple[str, ...]:
    notes, offset = [], config.get("steps_offset", 0)
    if config["_class_name"] not in _USUAL:
        notes.append(f"{path} names {config['_class_name']}: sampled with DDIM over the same noise schedule instead")
    if offset != 1:
        given = f"steps_offset {offset}" if "steps_offset" in config else "no steps_offset, which is 0"
        notes.append(
            f"{path} says {given}: taken as it is; Stable Diffusion 1.x has 1, and so has diffusers' "
            "StableDiffusionPipeline whatever the file says"
        )
    filled = {name: value for name, value in _defaults(config["_class_name"]).items() if name not in config}
    if config.get("trained_betas") is not None:
        filled = {name: value for name, value in filled.items() if name == "num_train_timesteps"}
    if filled:
        given = ", ".join(f"{name} {value}" for name, value in filled.items())
        notes.append(
            f"{path} leaves out what the model was trained with: taken as {config['_class_name']}'s own, {given}"
        )
    unknown = sorted(name for name in config if name not in _known() and not name.startswith("_"))
    if unknown:
        notes.append(
            f"{path} has {', '.join(map(shown, unknown))}, which no scheduler of this kind has, so it is left out: "
            "check the spelling"
        )
    return tuple(notes)


def _betas(config: dict[str, Any], path: Path) -> NDArray[np.float64]:
    settings = _defaults(config["_class_name"]) | config
    count, kind = settings["num_train_timesteps"], settings["beta_schedule"]
    if count < 1:
        refuse(path, "num_train_timesteps", count, "at least 1")
    trained = config.get("trained_betas")
    if trained is not None:
        if not isinstance(trained, list) or len(trained) != count or not all(map(is_number, trained)):
            refuse(path, "trained_betas", trained, f"null or num_train_timesteps = {count} numbers")
        betas = np.asarray(trained, np.float64)
    elif kind == "scaled_linear":
        first, last = (settings[name] for name in ("beta_start", "beta_end"))
        if min(first, last) < 0:
            raise InputError(f"{path} holds betas outside (0, 1): correct it, or download the file again")
        betas = np.linspace(first**0.5, last**0.5, count, dtype=np.float64) ** 2
    elif kind == "linear":
        betas = np.linspace(settings["beta_start"], settings["beta_end"], count, dtype=np.float64)
    else:
        raise InputError(f"{path} says beta_schedule {kind!r}, expected scaled_linear or linear: use another model")
    if not ((betas > 0) & (betas < 1)).all():
        raise InputError(f"{path} holds betas outside (0, 1): correct it, or download the file again")
    if not np.cumprod(1 - betas)[-1] > 0:
        raise InputError(f"{path} holds betas that leave nothing of the signal: correct it, or download the file again")
    return betas


def _defaults(kind: str) -> dict[str, Any]:
    parameters = _parameters(kind)
    return {name: parameters[name].default for name in _TRAINED}


@lru_cache
def _known() -> frozenset[str]:
    """The fields of any of these schedulers: files go from one to the other, and keep what only one of them reads."""
    return frozenset(name for kind in _SAME_TRAINING for name in _parameters(kind))


def _parameters(kind: str) -> Mapping[str, inspect.Parameter]:
    import diffusers

    return inspect.signature(getattr(diffusers, kind).__init__).parameters
