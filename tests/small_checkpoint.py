"""A checkpoint folder and responses for the small world, written by hand from the documented schema: nothing fitted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

N_VOXELS, N_SELECTED, SUBJECT = 24, 5, "someone"
SHAPES = {"context": (15, 16), "latent": (4, 4, 4), "structure": (6, 17, 32)}


def write_small_checkpoint(folder: Path, models_hash: str, *, preset: str = "reference", seed: int = 0) -> Path:
    """Random sparse decoders of the small world's shapes, for models with this hash."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    ones, zeros = np.ones(N_VOXELS, np.float32), np.zeros(N_VOXELS, np.float32)
    save_file({"mean": zeros, "std": ones}, folder / "normaliser.safetensors")
    uncond = rng.standard_normal(SHAPES["context"]).astype(np.float32)
    constants = {"context_bos": np.ascontiguousarray(uncond[0]), "uncond_context": uncond}
    save_file(constants, folder / "constants.safetensors")
    mask = rng.random(SHAPES["structure"]) < 0.25
    scores = {"mask": mask, "score": mask.astype(np.float32)}
    save_file(scores, folder / "mask.safetensors", metadata={"preset": preset})
    for name, shape in SHAPES.items():
        save_file(_decoder(rng, int(np.prod(shape))), folder / f"{name}.safetensors")
    content = {
        "format": "minddiffuser-checkpoint",
        "version": 1,
        "subject": SUBJECT,
        "modality": "fmri",
        "n_voxels": N_VOXELS,
        "preset": preset,
        "models": {"name": "small", "hash": models_hash},
        "shapes": {name: list(shape) for name, shape in SHAPES.items()},
        "image_size": 32,
        "decoders": {name: {"kind": "ridge", "n_selected": N_SELECTED, "alpha": 0.15} for name in SHAPES},
        "selection": {"percent": 25, "signed": True, "n_folds": 5},
        "provenance": {},
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")},
    }
    (folder / "checkpoint.json").write_text(json.dumps(content))
    return folder


def _decoder(rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    return {
        "index": rng.integers(N_VOXELS, size=(size, N_SELECTED)).astype(np.int32),
        "weight": (rng.standard_normal((size, N_SELECTED)) / N_SELECTED**0.5).astype(np.float32),
        "bias": np.zeros(size, np.float32),
        "position": np.arange(size, dtype=np.int32),
        "target_mean": np.zeros(size, np.float32),
        "target_std": np.full(size, 0.5, np.float32),
    }


def small_responses(n_trials: int, seed: int = 1) -> np.ndarray:
    """(n_trials, N_VOXELS) float32."""
    return np.random.default_rng(seed).standard_normal((n_trials, N_VOXELS)).astype(np.float32)
