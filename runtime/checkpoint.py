"""The files of a checkpoint folder: what fitting writes and decoding reads.

checkpoint.json       what it was fitted on and for, shapes, settings, and the SHA-256 of every other file; optionally
                      rois, name to [start, stop] in the voxel axis
normaliser            mean, std (n_voxels,) of the training responses; std 0 marks a voxel that did not vary
<target>              index (n_targets, n_selected) int32 voxels, weight of that shape, bias (n_targets,),
                      position (n_targets,) int32 in the flattened target, target_mean and target_std (size,)
constants             context_bos (d_text,), uncond_context (15, d_text)
scores.json, .svg     how well each feature is decoded on held-out training trials; may be absent
mask                  mask bool and score float32, both of the structure's shape; the layer preset as metadata
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FileError, InputError
from .files import check_format, read_json, read_tensors, sha256_of

Array = NDArray[Any]

KIND = "checkpoint"
VERSION = 1
DESCRIPTION = "checkpoint.json"
REQUIRED_TARGETS = ("context", "latent", "structure")
# The semantic feature of eq. 6 may be absent.
TARGETS = (*REQUIRED_TARGETS, "semantic")
# For people: decoding does not read them.
OPTIONAL_FILES = {"scores.json", "scores.svg"}
_RANKS = {"context": 2, "latent": 3, "structure": 3, "semantic": 1}
# What every decoder stores per target, whatever its kind: decoding is a weighted sum over chosen voxels.
DECODER_ARRAYS: dict[str, type] = {"index": np.int32, "weight": np.float32, "bias": np.float32}


def file_name(part: str) -> str:
    """The file of "normaliser", "constants", "mask" or a target."""
    return f"{part}.safetensors"


def read_description(folder: Path) -> dict[str, Any]:
    """Read and check checkpoint.json.

    Raises
    ------
    FileError
        Missing, damaged, of another kind or version, or with a field that cannot be used.
    """
    if not folder.is_dir():
        raise FileError(f"the checkpoint {folder} is not a folder: give the folder that md-train fit wrote")
    path = folder / DESCRIPTION
    if not path.exists() and (folder / "fit.json").exists():
        raise FileError(f"the checkpoint {folder} is not finished: run the same md-train fit command again")
    content = read_json(path, "the checkpoint's description")
    check_format(content, path, KIND, VERSION)
    _check_fields(content, path)
    return content


def _check_fields(content: Mapping[str, Any], path: Path) -> None:
    for name in ("subject", "modality", "preset"):
        _need(isinstance(content.get(name), str), path, name, "a text")
    for name in ("n_voxels", "image_size"):
        _need(_is_count(content.get(name)), path, name, "a positive whole number")
    models = content.get("models")
    _need(
        isinstance(models, dict) and all(isinstance(models.get(key), str) for key in ("name", "hash")),
        path,
        "models",
        "a name and a hash",
    )
    shapes = content.get("shapes")
    _need(isinstance(shapes, dict) and set(REQUIRED_TARGETS) <= set(shapes) <= set(TARGETS), path, "shapes", "targets")
    for name, shape in content["shapes"].items():
        good = isinstance(shape, list) and len(shape) == _RANKS[name] and all(_is_count(size) for size in shape)
        _need(good, path, f"shapes.{name}", f"{_RANKS[name]} positive whole numbers")
    decoders = content.get("decoders")
    _need(isinstance(decoders, dict) and set(decoders) == set(content["shapes"]), path, "decoders", "one per target")
    for name, decoder in content["decoders"].items():
        good = isinstance(decoder, dict) and isinstance(decoder.get("kind"), str) and decoder["kind"]
        _need(bool(good), path, f"decoders.{name}", "the decoder's kind")
    for name in ("selection", "provenance"):
        _need(isinstance(content.get(name), dict), path, name, "an object")
    files, needed = content.get("files"), {file_name(part) for part in parts(content)}
    whole = isinstance(files, dict) and needed <= set(files) <= needed | OPTIONAL_FILES
    _need(whole, path, "files", f"exactly {', '.join(sorted(needed))}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _need(good: bool, path: Path, field: str, expected: str) -> None:
    if not good:
        raise FileError(f"{path}: field {field!r} is missing or wrong, expected {expected}: fit the checkpoint again")


def parts(content: Mapping[str, Any]) -> list[str]:
    """Every file of a checkpoint besides its description."""
    return ["normaliser", "constants", "mask", *(name for name in TARGETS if name in content["shapes"])]


def verify_files(folder: Path, files: Mapping[str, str]) -> None:
    """Compare every file with its SHA-256.

    Raises
    ------
    FileError
        A file is missing, or its bytes are not those that were written.
    """
    for name, expected in sorted(files.items()):
        path = folder / name
        if not path.is_file():
            raise FileError(f"the checkpoint {folder} lacks {name}: copy the whole folder, or fit it again")
        if sha256_of(path) != expected:
            raise FileError(f"{path} is truncated or was changed (its SHA-256 differs): copy it again, or fit it again")


def read_part(folder: Path, part: str, expected: Mapping[str, tuple[type, tuple[int, ...]]]) -> dict[str, Array]:
    """Read one file and check names, dtypes and shapes.

    `expected` maps each name to (dtype, shape), where -1 in a shape stands for any size.
    """
    path = folder / file_name(part)
    arrays = read_tensors(path, f"the checkpoint's {part}")
    for name, (dtype, shape) in expected.items():
        array = arrays.get(name)
        if array is None or array.dtype != dtype or not _matches(array.shape, shape):
            got = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise FileError(f"{path}: {name} is {got}, expected {np.dtype(dtype)} {shape}: fit the checkpoint again")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FileError(f"{path}: {name} holds NaN or infinite values: fit the checkpoint again")
    return arrays


def _matches(got: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(got) == len(wanted) and all(want in (-1, size) for size, want in zip(got, wanted, strict=True))


def read_target(folder: Path, name: str, shape: tuple[int, ...], n_voxels: int) -> dict[str, Array]:
    """Read one target's decoder and check that its indices stay inside the responses and the target."""
    size, whole = math.prod(shape), np.float32
    ranks = {"index": (-1, -1), "weight": (-1, -1), "bias": (-1,)}
    arrays = read_part(
        folder,
        name,
        {
            **{key: (dtype, ranks[key]) for key, dtype in DECODER_ARRAYS.items()},
            "position": (np.int32, (-1,)),
            "target_mean": (whole, (size,)),
            "target_std": (whole, (size,)),
        },
    )
    index, position, n_targets = arrays["index"], arrays["position"], len(arrays["bias"])
    good = (
        index.shape == arrays["weight"].shape
        and len(index) == len(position) == n_targets
        and _inside(index, n_voxels)
        and _inside(position, size)
        and len(np.unique(position)) == n_targets
    )
    if not good:
        raise FileError(
            f"{folder / file_name(name)}: indices and weights do not fit {n_voxels} voxels and a target of size "
            f"{size}: fit the checkpoint again"
        )
    return {key: arrays[key] for key in (*DECODER_ARRAYS, "position", "target_mean", "target_std")}


def _inside(values: Array, size: int) -> bool:
    return values.size > 0 and int(values.min()) >= 0 and int(values.max()) < size


def read_mask(folder: Path, shape: tuple[int, ...], preset: str) -> dict[str, Array]:
    """Read the mask and refuse one of another layer preset.

    Raises
    ------
    InputError
        The mask was selected on other layers than the checkpoint's decoder.
    """
    from safetensors import safe_open

    arrays = read_part(folder, "mask", {"mask": (np.bool_, shape), "score": (np.float32, shape)})
    with safe_open(folder / file_name("mask"), framework="np") as file:
        stored = (file.metadata() or {}).get("preset")
    if stored != preset:
        raise InputError(
            f"the mask in {folder} was selected on the layer preset {stored!r}, the checkpoint is for {preset!r}: "
            "use the mask that was fitted with the checkpoint"
        )
    return arrays
