"""Open models from the tiny world, a folder or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingExtra, check_choice

if TYPE_CHECKING:
    from .models import Models

DTYPES = ("float32", "bfloat16", "float16", "float64")
LIBRARIES = ("torch", "diffusers", "transformers", "open_clip", "huggingface_hub")


def load_models(
    name: str | Path,
    *,
    clip: str | Path | None = None,
    preset: str = "reference",
    device: str = "cpu",
    dtype: str = "float32",
) -> Models:
    """Open the networks of both stages.

    Parameters
    ----------
    name
        ``"tiny"``; a Stable Diffusion 1.x folder in the diffusers layout (safetensors, whole or in shards); or a hub id
        such as ``"CompVis/stable-diffusion-v1-4"``, from the hub's cache or downloaded.
    clip
        An open_clip folder, ``"ARCHITECTURE:PRETRAINED"``, or ``"hf-hub:OWNER/NAME"``. None: the folder's own `clip`
        if it has one, else ``"ViT-B-32:openai"``.
    preset
        Blocks that structure is read from: ``"reference"`` (1 to 6) or ``"paper"`` (2, 4, ..., 12).
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    dtype
        Of weights and activations: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"float64"`` (for finite
        differences). Preprocessing and results stay in float32 for the two short ones.

    Raises
    ------
    FileError
        A missing, partial or damaged folder, or one that may not be read; weights that its configs leave unused or do
        not find; no network.
    InputError
        Another architecture, a field of a config that is of another type or that would change the numbers and is not
        honoured, unknown preset or dtype, a device that is not there.
    MissingExtra
        PyTorch or one of the model libraries is not installed.
    """
    check_choice("dtype", dtype, DTYPES)
    try:
        from .build import build
    except ModuleNotFoundError as error:
        if error.name not in LIBRARIES:
            raise
        raise MissingExtra(f"models need {error.name}: pip install 'minddiffuser[torch]'") from error
    return build(name, clip=clip, preset=preset, device=device, dtype=dtype)
