"""What is in a bundle, for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..runtime.bundle import Bundle
from ..runtime.bundle_schema import Variant
from ..runtime.engines.open import BACKENDS, choose_backend
from ..runtime.engines.ort import PROVIDERS
from ..runtime.engines.trt_identity import check_plan, this_machine
from ..runtime.errors import MindDiffuserError


def describe(folder: Path) -> Iterator[str]:
    """Lines about a bundle: lineage, graphs with sizes and figures, and what it will run on here.

    Raises
    ------
    FileError
        The bundle is missing, changed or damaged.
    """
    bundle = Bundle.open(folder)
    versions = bundle.manifest["versions"]
    maker = versions.get("minddiffuser", "?")
    yield f"bundle {bundle.folder}, {_bytes(bundle.size_bytes)}, made by minddiffuser {maker}"
    yield f"  subject {bundle.subject} ({bundle.modality}), {bundle.n_voxels} voxels, {bundle.image_size} px"
    yield f"  models {bundle.models_name} {bundle.models_hash[:12]}, checkpoint {bundle.checkpoint_hash[:12]}"
    yield f"  structure from the layer preset {bundle.preset}"
    origin = bundle.manifest["lineage"].get("verified_on")
    if isinstance(origin, dict):
        yield f"  verified on {origin.get('trials')} trials, {origin.get('origin')}"
    yield "graphs"
    for graph in bundle.graphs.values():
        yield f"  {graph.name}"
        for name, spec in graph.inputs.items():
            yield f"    in   {name} {spec}"
        for name, spec in graph.outputs.items():
            yield f"    out  {name} {spec}"
        for variant in graph.variants:
            yield f"    {_variant(variant)}"
    yield "pictures against PyTorch"
    for precision, figures in bundle.manifest["end_to_end"].items():
        yield f"  {precision}: {_pictures(figures)}"
    yield "runs on"
    yield from (f"  {line}" for line in _here(bundle))


def _variant(variant: Variant) -> str:
    worst = _worst(variant.parity)
    told = [f"{variant.target} {variant.precision}", _bytes(variant.file.stat().st_size)]
    told += [f"opset {variant.opset}"] if variant.target == "onnx" else []
    told += [f"batch {variant.batch_sizes[0]} to {variant.batch_sizes[-1]}"] if variant.batch_sizes else []
    told += [f"worst error {worst:.2g}"] if worst is not None else [str(variant.parity.get("verified", ""))]
    told += [f"{len(variant.precision_map)} layers kept wider"] if variant.precision_map else []
    gpu = variant.builder.get("gpu")
    told += [f"for {gpu}"] if isinstance(gpu, str) else []
    return ", ".join(part for part in told if part)


def _worst(parity: dict[str, Any]) -> float | None:
    inputs = parity.get("inputs")
    if not isinstance(inputs, dict):
        return None
    found = [
        part["worst"]
        for tensors in inputs.values()
        if isinstance(tensors, dict)
        for part in tensors.values()
        if isinstance(part, dict) and isinstance(part.get("worst"), int | float)
    ]
    return max(found, default=None)


def _pictures(figures: Any) -> str:
    if not isinstance(figures, dict):
        return "no figures"
    differences = figures.get("differences")
    told = [f"PSNR {figures.get('psnr_db'):.1f} dB"] if isinstance(figures.get("psnr_db"), int | float) else []
    if isinstance(differences, dict):
        told += [f"{name} {value:+.4f}" for name, value in differences.items() if isinstance(value, int | float)]
    return ", ".join(told) or "no figures"


def _here(bundle: Bundle) -> Iterator[str]:
    for backend in BACKENDS:
        reason = _why_not(bundle, backend)
        yield f"{backend}: yes" if reason is None else f"{backend}: no, {reason}"
    try:
        choice = choose_backend(bundle, "auto")
    except MindDiffuserError as error:
        yield f"auto: no, {error}"
    else:
        yield f"auto: {choice.backend} ({choice.reason})"


def _why_not(bundle: Bundle, backend: str) -> str | None:
    """Why a backend cannot run the bundle here, without what to do about it."""
    try:
        choose_backend(bundle, backend)
        if backend.startswith("ort"):
            return _no_provider(backend)
        target = BACKENDS[backend]
        here = this_machine(target)
    except MindDiffuserError as error:
        return str(error).rpartition(": ")[0] or str(error)
    plans = [variant for graph in bundle.graphs.values() for variant in graph.variants if variant.target == target]
    return next((reason for plan in plans if (reason := check_plan(plan.builder, here)) is not None), None)


def _no_provider(backend: str) -> str | None:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return "onnxruntime is not installed"
    wanted = PROVIDERS[backend.removeprefix("ort").removeprefix("-") or "cpu"]
    return None if wanted in onnxruntime.get_available_providers() else f"this onnxruntime has no {wanted}"


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
