"""The libraries whose versions can change a picture, and what to say where they are others than before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..environment import compare_versions, versions

LIBRARIES = ("minddiffuser", "numpy", "pillow", "safetensors")
TORCH_LIBRARIES = ("torch", "diffusers", "transformers", "open_clip_torch")
ENGINE_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx")
# Those whose version can change a picture. safetensors, which only reads, cannot.
OURS = ("minddiffuser", "numpy", "pillow")
ONNX_RUNTIME = ("onnxruntime", "onnxruntime-gpu")
# What a backend computes with; decoders run on ONNX Runtime under every one of them.
_OF_BACKEND = {
    "tensorrt": (*ONNX_RUNTIME, "tensorrt"),
    "tensorrt-rtx": (*ONNX_RUNTIME, "tensorrt-rtx"),
    "ort-tensorrt": (*ONNX_RUNTIME, "tensorrt"),
}


def libraries_of(backend: str) -> tuple[str, ...]:
    """Libraries that engines of a backend compute with."""
    return (*OURS, *_OF_BACKEND.get(backend, ONNX_RUNTIME))


def notes_of_torch(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Whether the decoders were fitted with other libraries than those here."""
    compared = ("minddiffuser", *TORCH_LIBRARIES)
    return _note(provenance.get("libraries"), versions(compared), compared, "the decoders were fitted", "this runs")


def notes_of_bundle(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """Libraries of other versions: when the networks were exported than at the fit, and here than at the export."""
    exported = manifest.get("versions")
    if not isinstance(exported, dict):
        return ()
    libraries = manifest["checkpoint"]["provenance"].get("libraries")
    at_export = {name: number for name, number in exported.items() if isinstance(number, str)}
    before, now = _one_onnx_runtime(at_export), _one_onnx_runtime(versions(("minddiffuser", *ONNX_RUNTIME)))
    compared = ("minddiffuser", "onnxruntime")
    return (
        *_note(libraries, at_export, TORCH_LIBRARIES, "the decoders were fitted", "the bundle was exported"),
        *_note(before, now, compared, "the bundle was exported and verified", "this runs"),
    )


def _one_onnx_runtime(found: dict[str, str]) -> dict[str, str]:
    """Versions, with that of ONNX Runtime under one name whichever package it comes from."""
    there = [found[name] for name in reversed(ONNX_RUNTIME) if name in found]
    return {**found, "onnxruntime": there[0]} if there else found


def _note(before: object, now: dict[str, str], libraries: Sequence[str], then: str, here: str) -> tuple[str, ...]:
    found = compare_versions(before, now, libraries)
    if found is None:
        return ()
    return (
        f"Other library versions: {then} with {', '.join(found[0])}, and {here} with {', '.join(found[1])}. Features "
        "may differ in small ways; where the pictures look wrong, install the same versions.",
    )
