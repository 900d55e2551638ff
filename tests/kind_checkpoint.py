"""A checkpoint of one kind of decoder for responses of any shape, with random weights, and what it must decode.

What it must decode is worked out from the very numbers in the files, in float64, by none of the package's code:
formulas for a linear decoder, PyTorch's own functions for a network, and every candidate in turn where the context is
that of the nearest concept.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

SHAPES: dict[str, tuple[int, ...]] = {
    "context": (15, 16),
    "latent": (4, 4, 4),
    "structure": (6, 17, 32),
    "semantic": (32,),
}
IMAGE_SIZE, SUBJECT = 32, "someone"
Arrays = Mapping[str, np.ndarray]
# A linear decoder gives one feature; a network several from one trunk.
GROUPS = {
    "linear": (("context",), ("latent",), ("structure",), ("semantic",)),
    "network": (("latent", "structure"), ("context", "semantic")),
}
HIDDEN, DEPTH, N_SELECTED = 24, 2, 9
ROUTES = ("direct", "concepts")
CONCEPTS, WIDTH = ("cat", "dog", "sea lion", "Öl", "fish"), 12


@dataclass(frozen=True)
class KindCheckpoint:
    """The folder, and `expected`: responses -> feature -> (n, *shape) float64."""

    folder: Path
    expected: Callable[[np.ndarray], dict[str, np.ndarray]]


def layout_json(shape: tuple[int, ...]) -> dict[str, Any]:
    """A layout of these sizes: fMRI for one, EEG for two."""
    if len(shape) == 1:
        half = shape[0] // 2
        return {"modality": "fmri", "response_shape": list(shape), "rois": {"V1": [0, half], "LO": [half, shape[0]]}}
    channels = [{"name": f"E{number}", "type": "eeg"} for number in range(shape[0])]
    times = {"sfreq": 100.0, "tmin": -0.1, "unit": "1"}
    return {"modality": "eeg", "response_shape": list(shape), "channels": channels, **times}


def write_kind_checkpoint(
    folder: Path, kind: str, response_shape: tuple[int, ...], models_hash: str = "ab" * 32, *, route: str = "direct"
) -> KindCheckpoint:
    """Write it; the second value of a trial did not vary in training.

    By the route "concepts", an embedding is decoded in the context's place.
    """
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True)
    size = math.prod(response_shape)
    mean, std = (make(size).astype(np.float32) for make in (rng.standard_normal, lambda n: rng.uniform(0.5, 2, n)))
    std[1] = 0
    save_file(
        {"mean": mean.reshape(response_shape), "std": std.reshape(response_shape)}, folder / "normaliser.safetensors"
    )
    uncond = rng.standard_normal(SHAPES["context"]).astype(np.float32)
    bos = np.ascontiguousarray(uncond[0])
    save_file({"context_bos": bos, "uncond_context": uncond}, folder / "constants.safetensors")
    mask = rng.random(SHAPES["structure"]) < 0.25
    save_file(
        {"mask": mask, "score": mask.astype(np.float32)}, folder / "mask.safetensors", metadata={"preset": "reference"}
    )
    positions = {name: np.arange(math.prod(shape), dtype=np.int32) for name, shape in SHAPES.items()}
    positions["context"] = positions["context"][SHAPES["context"][1] :]
    positions["structure"] = np.flatnonzero(mask).astype(np.int32)
    shapes, more, concepts = dict(SHAPES), {}, None
    if route == "concepts":
        shapes["embedding"], positions["embedding"] = (WIDTH,), np.arange(WIDTH, dtype=np.int32)
        concepts = _concepts(rng)
        save_file(concepts, folder / "concepts.safetensors")
        described = {"n_candidates": len(CONCEPTS), "prompt": "a {}", "prototypes": "text", "names": list(CONCEPTS)}
        more = {"concepts": described}
    files, entries = {}, []
    for group in GROUPS[kind]:
        features = tuple("embedding" if concepts and name == "context" else name for name in group)
        arrays, entry = _WRITE[kind](rng, size, {name: len(positions[name]) for name in features})
        for name in features:
            arrays[f"{name}.position"] = positions[name]
            arrays[f"{name}.mean"] = rng.standard_normal(math.prod(shapes[name])).astype(np.float32)
            arrays[f"{name}.std"] = rng.uniform(0.5, 2, math.prod(shapes[name])).astype(np.float32)
        save_file(arrays, folder / f"{'-'.join(features)}.safetensors")
        entries.append({"kind": kind, "features": list(features), "fit": {}, **entry})
        files[features] = arrays
    content = {
        "format": "minddiffuser-checkpoint",
        "version": 2,
        "subject": SUBJECT,
        "layout": layout_json(response_shape),
        "preset": "reference",
        "models": {"name": "small", "hash": models_hash},
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        **more,
        "image_size": IMAGE_SIZE,
        "decoders": entries,
        "selection": {},
        "provenance": {},
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")},
    }
    (folder / "checkpoint.json").write_text(json.dumps(content))

    def expected(responses: np.ndarray) -> dict[str, np.ndarray]:
        flat = responses.reshape(len(responses), -1).astype(np.float64)
        scores = np.where(std > 0, (flat - mean) / np.where(std > 0, std, 1).astype(np.float64), 0)
        found = {}
        for features, arrays in files.items():
            for name, predicted in zip(features, _PREDICT[kind](scores, arrays), strict=True):
                out = np.tile(arrays[f"{name}.mean"].astype(np.float64), (len(flat), 1))
                place = arrays[f"{name}.position"]
                out[:, place] += arrays[f"{name}.std"][place] * predicted
                found[name] = out.reshape(-1, *shapes[name])
        if concepts is None:
            found["context"][:, 0] = bos
            return found
        found["similarity"] = np.stack([_cosines(row, concepts) for row in found.pop("embedding")])
        found["context"] = np.stack([concepts["context"][_first_largest(row)] for row in found["similarity"]])
        return found

    return KindCheckpoint(folder, expected)


def _concepts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    embedding = rng.standard_normal((len(CONCEPTS), WIDTH))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    context = rng.standard_normal((len(CONCEPTS), *SHAPES["context"]))
    arrays = {"embedding": embedding, "centre": rng.standard_normal(WIDTH), "context": context}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _cosines(decoded: np.ndarray, concepts: Arrays) -> np.ndarray:
    away = [float(a) - float(b) for a, b in zip(decoded, concepts["centre"], strict=True)]
    length = math.sqrt(sum(a * a for a in away))
    return np.array(
        [sum(a * float(b) for a, b in zip(away, one, strict=True)) / length for one in concepts["embedding"]]
    )


def _first_largest(values: np.ndarray) -> int:
    best = 0
    for number, value in enumerate(values):
        if value > values[best]:
            best = number
    return best


def _write_linear(
    rng: np.random.Generator, size: int, n_outputs: Mapping[str, int]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    (n,) = n_outputs.values()
    index = np.stack([rng.permutation(size)[:N_SELECTED] for _ in range(n)]).astype(np.int32)
    weight = rng.standard_normal((n, N_SELECTED)).astype(np.float32) / 3
    return {"index": index, "weight": weight, "bias": rng.standard_normal(n).astype(np.float32)}, {}


def _predict_linear(scores: np.ndarray, arrays: Arrays) -> list[np.ndarray]:
    rows = [
        [sum(row[i] * float(w) for i, w in zip(index, weight, strict=True)) for row in scores]
        for index, weight in zip(arrays["index"], arrays["weight"], strict=True)
    ]
    return [np.array(rows).T + arrays["bias"]]


def _write_network(
    rng: np.random.Generator, size: int, n_outputs: Mapping[str, int]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, width = {}, size
    for number in range(DEPTH):  # Flatten, then Linear, LayerNorm, GELU, Dropout of each layer
        arrays |= _linear(rng, f"network.trunk.{4 * number + 1}", width, HIDDEN)
        arrays[f"network.trunk.{4 * number + 2}.weight"] = rng.uniform(0.5, 1.5, HIDDEN).astype(np.float32)
        arrays[f"network.trunk.{4 * number + 2}.bias"] = rng.standard_normal(HIDDEN).astype(np.float32)
        width = HIDDEN
    for number, n in enumerate(n_outputs.values()):
        arrays |= _linear(rng, f"network.heads.{number}", width, n)
    config = {"hidden": HIDDEN, "depth": DEPTH, "dropout": 0.5}
    return arrays, {"network": {"architecture": "mlp", "config": config}}


def _linear(rng: np.random.Generator, name: str, width: int, n: int) -> dict[str, np.ndarray]:
    weight = (rng.standard_normal((n, width)) / width**0.5).astype(np.float32)
    return {f"{name}.weight": weight, f"{name}.bias": rng.standard_normal(n).astype(np.float32)}


def _predict_network(scores: np.ndarray, arrays: Arrays) -> list[np.ndarray]:
    import torch
    from torch.nn import functional

    w = {
        name.removeprefix("network."): torch.from_numpy(array).double()
        for name, array in arrays.items()
        if name.startswith("network.")
    }
    x = torch.from_numpy(scores)
    for number in range(DEPTH):
        linear, norm = f"trunk.{4 * number + 1}", f"trunk.{4 * number + 2}"
        x = functional.linear(x, w[f"{linear}.weight"], w[f"{linear}.bias"])
        x = functional.layer_norm(x, (HIDDEN,), w[f"{norm}.weight"], w[f"{norm}.bias"], eps=1e-5)
        x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    n_heads = sum(name.startswith("heads.") and name.endswith(".weight") for name in w)
    heads = [functional.linear(x, w[f"heads.{k}.weight"], w[f"heads.{k}.bias"]) for k in range(n_heads)]
    return [head.numpy() for head in heads]


_WRITE: dict[str, Any] = {"linear": _write_linear, "network": _write_network}
_PREDICT: dict[str, Any] = {"linear": _predict_linear, "network": _predict_network}
