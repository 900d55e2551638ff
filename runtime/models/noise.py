"""The noise schedule that a model was trained with, from its scheduler_config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import read_json

# Fields that change the mathematics; anything but these values would need another sampler.
_EXPECTED = {"prediction_type": "epsilon", "rescale_betas_zero_snr": False, "timestep_spacing": "leading"}


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseSchedule:
    """What a sampler needs: `alphas_cumprod` (n_train_steps,) float64 and diffusers' two conventions.

    SD 1.4: scaled-linear betas 0.00085 to 0.012, 1000 steps, `steps_offset` 1, `set_alpha_to_one` False.
    """

    alphas_cumprod: NDArray[np.float64]
    steps_offset: int
    set_alpha_to_one: bool


def read_schedule(path: Path) -> NoiseSchedule:
    """Read scheduler_config.json; InputError when the model predicts something else than the noise."""
    config = read_json(path, "the scheduler's config")
    for field, expected in _EXPECTED.items():
        if config.get(field, expected) != expected:
            raise InputError(
                f"{path} says {field} {config[field]!r}, expected {expected!r}: "
                "use a model of the Stable Diffusion 1.x family, such as CompVis/stable-diffusion-v1-4"
            )
    alphas = np.cumprod(1 - _betas(config, path), dtype=np.float64)
    alphas.setflags(write=False)
    # diffusers' own defaults for absent fields: only PNDM starts from the first alpha instead of one.
    last_is_one = config.get("set_alpha_to_one", config.get("_class_name") != "PNDMScheduler")
    return NoiseSchedule(
        alphas_cumprod=alphas,
        steps_offset=int(config.get("steps_offset", 0)),
        set_alpha_to_one=bool(last_is_one),
    )


def _betas(config: dict[str, Any], path: Path) -> NDArray[np.float64]:
    try:
        if config.get("trained_betas") is not None:
            betas = np.asarray(config["trained_betas"], np.float64)
        else:
            first, last = float(config.get("beta_start", 0.0001)), float(config.get("beta_end", 0.02))
            count, kind = int(config.get("num_train_timesteps", 1000)), config.get("beta_schedule", "linear")
            if kind == "scaled_linear":
                betas = np.linspace(first**0.5, last**0.5, count, dtype=np.float64) ** 2
            elif kind == "linear":
                betas = np.linspace(first, last, count, dtype=np.float64)
            else:
                raise InputError(
                    f"{path} says beta_schedule {kind!r}, expected scaled_linear or linear: use another model"
                )
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} holds betas that are no numbers ({error}): download the file again") from error
    if betas.ndim != 1 or not betas.size or not ((betas > 0) & (betas < 1)).all():
        raise InputError(f"{path} holds betas outside (0, 1): download the file again")
    return betas
