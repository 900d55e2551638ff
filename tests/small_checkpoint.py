"""A checkpoint folder and responses for a world, written by hand from the documented schema: nothing fitted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

N_VOXELS, N_SELECTED, SUBJECT = 24, 5, "someone"
SHAPES = {"context": (15, 16), "latent": (4, 4, 4), "structure": (6, 17, 32)}

CAPTIONS = ("a red cat in the snow", "a blue house", "two green birds on a beach", "a yellow car at night")


@dataclass(frozen=True, kw_only=True)
class World:
    """What decoders are to give.

    `scales` holds mean and deviation of a target, each of the target's shape or a number; 0 and 0.5 where it says
    nothing. `uncond_context` is random where it is None.
    """

    name: str = "small"
    image_size: int = 32
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: dict(SHAPES))
    scales: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    uncond_context: np.ndarray | None = None


def world_of(models: Any, name: str, *, semantic: bool = False) -> World:
    """The world of these models, with decoders that give what their own encoders would: means and deviations of the
    contexts of a few captions, and of the latents and features of a few soft random pictures."""
    import torch

    context = models.encode_text(CAPTIONS).numpy()
    coarse = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    pictures = torch.nn.functional.interpolate(coarse, size=models.image_size, mode="bilinear")
    with torch.no_grad():
        structure, token, _ = (found.numpy() for found in models.features(pictures))
    latent = models.encode_latent(pictures).numpy()
    scales = {
        "context": (context.mean(0), 0.2 * context.std(0)),
        "latent": (latent.mean(0), latent.std(0)),
        "structure": (structure.mean(0), structure.std(0)),
    }
    scales |= {"semantic": (token.mean(0), token.std(0))} if semantic else {}
    shapes = {
        "context": models.context_shape,
        "latent": models.latent_shape,
        "structure": models.structure_shape,
        "semantic": token.shape[1:],
    }
    return World(
        name=name,
        image_size=models.image_size,
        shapes={target: shapes[target] for target in scales},
        scales=scales,
        uncond_context=models.encode_text([""])[0].numpy(),
    )


def write_small_checkpoint(
    folder: Path, models_hash: str, *, preset: str = "reference", seed: int = 0, world: World | None = None
) -> Path:
    """Random sparse decoders of a world's shapes (None: the small world's), for models with this hash."""
    rng, world = np.random.default_rng(seed), world or World()
    folder.mkdir(parents=True)
    ones, zeros = np.ones(N_VOXELS, np.float32), np.zeros(N_VOXELS, np.float32)
    save_file({"mean": zeros, "std": ones}, folder / "normaliser.safetensors")
    uncond = world.uncond_context
    if uncond is None:
        uncond = rng.standard_normal(world.shapes["context"]).astype(np.float32)
    constants = {"context_bos": np.ascontiguousarray(uncond[0]), "uncond_context": uncond}
    save_file(constants, folder / "constants.safetensors")
    mask = rng.random(world.shapes["structure"]) < 0.25
    scores = {"mask": mask, "score": mask.astype(np.float32)}
    save_file(scores, folder / "mask.safetensors", metadata={"preset": preset})
    for name, shape in world.shapes.items():
        save_file(_decoder(rng, name, shape, *world.scales.get(name, (0.0, 0.5))), folder / f"{name}.safetensors")
    content = {
        "format": "minddiffuser-checkpoint",
        "version": 2,
        "subject": SUBJECT,
        "layout": {"modality": "fmri", "response_shape": [N_VOXELS]},
        "preset": preset,
        "models": {"name": world.name, "hash": models_hash},
        "shapes": {name: list(shape) for name, shape in world.shapes.items()},
        "image_size": world.image_size,
        "decoders": [{"kind": "linear", "features": [name], "fit": {"fitter": "ridge"}} for name in world.shapes],
        "selection": {"percent": 25, "signed": True, "n_folds": 5},
        "provenance": {},
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")},
    }
    (folder / "checkpoint.json").write_text(json.dumps(content))
    return folder


def _decoder(rng: np.random.Generator, name: str, shape: tuple[int, ...], mean: Any, std: Any) -> dict[str, np.ndarray]:
    size = int(np.prod(shape))
    return {
        "index": rng.integers(N_VOXELS, size=(size, N_SELECTED)).astype(np.int32),
        "weight": (rng.standard_normal((size, N_SELECTED)) / N_SELECTED**0.5).astype(np.float32),
        "bias": np.zeros(size, np.float32),
        f"{name}.position": np.arange(size, dtype=np.int32),
        f"{name}.mean": np.broadcast_to(mean, shape).astype(np.float32).ravel(),
        f"{name}.std": np.broadcast_to(std, shape).astype(np.float32).ravel(),
    }


def add_training_pictures(folder: Path, pictures: Sequence[np.ndarray], seed: int = 0) -> None:
    """The table of these training pictures (H, W, 3) uint8, with random features in the units of the decoders."""
    rng, arrays = np.random.default_rng(seed), {}
    digests = [hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).digest() for image in pictures]
    arrays["number"] = np.arange(len(pictures), dtype=np.int32)
    arrays["pixels"] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    content = json.loads((folder / "checkpoint.json").read_text())
    for name, shape in content["shapes"].items():
        size = int(np.prod(shape))
        arrays |= {
            f"{name}.position": np.arange(size, dtype=np.int32),
            f"{name}.mean": np.zeros(size, np.float32),
            f"{name}.std": np.full(size, 0.5, np.float32),
            f"{name}.sign": np.ones(size, np.int8),
            f"{name}.table": rng.standard_normal((len(pictures), size)).astype(np.float16),
        }
    arrays["typical.context"] = rng.standard_normal(content["shapes"]["context"]).astype(np.float32)
    arrays["mean.latent"] = rng.standard_normal(content["shapes"]["latent"]).astype(np.float32)
    path = folder / "training_pictures.safetensors"
    save_file(arrays, path)
    content["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "checkpoint.json").write_text(json.dumps(content))


def small_responses(n_trials: int, seed: int = 1) -> np.ndarray:
    """(n_trials, N_VOXELS) float32."""
    return np.random.default_rng(seed).standard_normal((n_trials, N_VOXELS)).astype(np.float32)
