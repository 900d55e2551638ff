"""A description of what a bundle holds, for people to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...runtime.backends.bundle import STAGE_1, STAGE_2
from ...runtime.bundle.manifest import Variant
from ...runtime.bundle.open import Bundle
from ...runtime.data.json_types import number_or_none
from ...runtime.decoders.screen import sizes
from ...runtime.engines.here import BACKENDS, Machine, why_not_backend
from ...runtime.engines.open import choose_backend
from ...runtime.engines.trust import Trust
from ...runtime.errors import MindDiffuserError, shown


def describe(folder: Path, trust: Trust | None = None) -> Iterator[str]:
    """Lines about a bundle: lineage, graphs with sizes and errors, and what it can run on here.

    Parameters
    ----------
    trust
        Which plans count as trusted; None: no plan. Nothing is loaded.

    Raises
    ------
    FileError
        The bundle is missing, changed or damaged.
    """
    bundle = Bundle.open(folder)
    versions = bundle.manifest["versions"]
    maker = _text(versions.get("minddiffuser"))
    yield f"bundle {bundle.folder}, {_bytes(bundle.size_bytes)}, made by minddiffuser {maker}"
    yield f"  subject {bundle.subject} ({bundle.layout.modality}), {sizes(bundle.layout.shape)}, {bundle.image_size} px"
    yield f"  models {bundle.models_name} {bundle.models_hash[:12]}, checkpoint {bundle.checkpoint_hash[:12]}"
    yield f"  structure from the layer preset {bundle.preset}"
    origin = bundle.manifest["lineage"].get("verified_on")
    if isinstance(origin, dict):
        yield f"  verified on {_text(origin.get('trials'))} trials, {_text(origin.get('origin'))}"
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
    for precision, metrics in bundle.manifest["end_to_end"].items():
        yield f"  {_text(precision)}: {_pictures(metrics)}"
        if isinstance(metrics, dict) and "guided" in metrics:
            yield f"  {_text(precision)}, a guided pass: {_pictures(metrics['guided'])}"
    yield "runs on"
    yield from (f"  {line}" for line in _here(bundle, Machine(trust)))


def _variant(variant: Variant) -> str:
    worst, jump = _most(variant.parity, "worst"), _most(variant.parity, "jump")
    parts = [f"{variant.target} {variant.precision}", _bytes(variant.file.stat().st_size)]
    parts += [f"opset {variant.opset}"] if variant.target == "onnx" else []
    parts += [f"batch {variant.batch_sizes[0]} to {variant.batch_sizes[-1]}"] if variant.batch_sizes else []
    parts += [f"worst error {worst:.2g}"] if worst is not None else [_text(variant.parity.get("verified"))]
    parts += [f"of which clamped pixels may account for {jump:.2g}"] if worst is not None and jump is not None else []
    parts += [f"{len(variant.precision_map)} layers kept in float32"] if variant.precision_map else []
    gpu = variant.builder.get("gpu")
    parts += [f"for {_text(gpu)}"] if isinstance(gpu, str) else []
    return ", ".join(part for part in parts if part)


def _most(parity: dict[str, Any], measure: str) -> float | None:
    """The largest value of one measure over tensors and kinds of input."""
    inputs = parity.get("inputs")
    if not isinstance(inputs, dict):
        return None
    parts = [part for tensors in inputs.values() if isinstance(tensors, dict) for part in tensors.values()]
    found = [number_or_none(part.get(measure)) for part in parts if isinstance(part, dict)]
    return max((value for value in found if value is not None), default=None)


def _pictures(metrics: Any) -> str:
    if not isinstance(metrics, dict):
        return "not compared"
    level = number_or_none(metrics.get("psnr_db"))
    parts = [] if level is None else [f"PSNR {level:.1f} dB"]
    differences = metrics.get("differences")
    if isinstance(differences, dict):
        known = {name: number_or_none(value) for name, value in differences.items()}
        parts += [f"{_text(name)} {value:+.4f}" for name, value in known.items() if value is not None]
    if not parts and isinstance(metrics.get("reason"), str):
        return f"not compared, {_text(metrics['reason'])}"
    return ", ".join(parts) or "not compared"


def _text(value: Any) -> str:
    """A text from an untrusted manifest, without control characters."""
    return shown(value).strip("'\"") if value is not None else "?"


def _here(bundle: Bundle, machine: Machine) -> Iterator[str]:
    for backend in BACKENDS:
        reason = why_not_backend(bundle, backend, machine)
        yield f"{backend}: yes" if reason is None else f"{backend}: no, {reason}"
    yield f"auto: {_auto(bundle, machine, list(bundle.graphs))}"
    optional = [name for name in ("decode_semantic", "clip_structure") if name in bundle.graphs]
    for what, graphs in (
        ("md-reconstruct run --stage 1", [*STAGE_1, *(n for n in optional if n == "clip_structure")]),
        ("md-reconstruct run", [*STAGE_1, *STAGE_2, *optional]),
    ):
        missing = [name for name in graphs if name not in bundle.graphs]
        answer = f"no, it lacks {', '.join(missing)}" if missing else _auto(bundle, machine, graphs)
        yield f"{what}: {answer}"


def _auto(bundle: Bundle, machine: Machine, graphs: list[str]) -> str:
    """The backend that would be taken for some graphs, and why."""
    try:
        choice = choose_backend(bundle, "auto", machine, graphs=graphs)
    except MindDiffuserError as error:
        return f"no, {error}"
    return f"{choice.backend} ({choice.reason})"


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
