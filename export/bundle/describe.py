"""What a bundle's manifest says of its parts; :mod:`~minddiffuser.runtime.bundle.manifest` is what it is read by."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.backends.libraries import ENGINE_LIBRARIES, LIBRARIES, TORCH_LIBRARIES
from ...runtime.bundle.graph_specs import Specs
from ...runtime.bundle.manifest import MANIFEST, VERSION
from ...runtime.candidates import FIELD as CONCEPTS
from ...runtime.decoders.checkpoint import Checkpoint
from ...runtime.environment import versions
from ...runtime.files import sha256_of
from ...runtime.leaks import labelled
from ...runtime.sampling import Sampling
from ...runtime.split import FIELD as SPLIT

if TYPE_CHECKING:
    from ...runtime.models.models import Models


def describe_format() -> dict[str, Any]:
    """The format, and the libraries that wrote it."""
    return {
        "format": "minddiffuser-bundle",
        "version": VERSION,
        "versions": versions((*LIBRARIES, *TORCH_LIBRARIES, *ENGINE_LIBRARIES, "onnx", "onnxscript", "onnx-ir")),
    }


def describe_models(models: Models, sampling: Sampling) -> dict[str, Any]:
    """What a runtime needs to know of the networks, and how its pictures are sampled."""
    return {
        "models": {"name": Path(models.name).name, "hash": models.hash},
        "image_size": models.image_size,
        "preprocessing": models.preprocessing.describe(),
        "sampling": {
            **asdict(sampling),
            "steps_offset": models.steps_offset,
            "set_alpha_to_one": models.set_alpha_to_one,
        },
    }


def describe_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a runtime needs to know of the decoders, and where they come from."""
    description = checkpoint.description
    return {
        "checkpoint": {
            "hash": checkpoint.hash,
            "subject": checkpoint.subject,
            "decoders": description["decoders"],
            "selection": description["selection"],
            "provenance": description["provenance"],
            **labelled(checkpoint.leaks),
            **({} if checkpoint.split is None else {SPLIT: checkpoint.split.as_json()}),
            **({} if checkpoint.candidates is None else {CONCEPTS: checkpoint.candidates.as_json()}),
        },
        "preset": checkpoint.preset,
        "layout": checkpoint.layout.as_json(),
        "shapes": {name: list(shape) for name, shape in checkpoint.shapes.items()},
    }


def describe_specs(specs: Specs) -> dict[str, Any]:
    """A graph's inputs or outputs."""
    return {name: {"dtype": spec.dtype, "shape": list(spec.shape)} for name, spec in specs.items()}


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file of a bundle but its manifest, by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "size": path.stat().st_size} for path in paths
    }
