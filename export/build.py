"""Engines built from a bundle's graphs for one kind of GPU, added to the bundle: what ``md-export build`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..runtime.batch.identity import alone_in
from ..runtime.bundle import Bundle
from ..runtime.bundle_schema import DECODE, MANIFEST, PARITY, Listed, Variant, sealed
from ..runtime.engines.open import ORT_CACHE
from ..runtime.engines.ort import OrtSettings, open_ort
from ..runtime.errors import InputError
from ..runtime.files import read_json, read_tensors, sha256_of, write_json
from .check import case_of, fitted, run_variant, spread_of, why_not_here
from .parity import TOLERANCES, compare, failed
from .to_trt import build_plan
from .trt_settings import TrtSettings

Progress = Callable[[str, int, int], None]
ORT_TENSORRT = "ort-tensorrt"


def build_engines(
    folder: Path,
    target: str,
    settings: TrtSettings | None,
    *,
    precisions: Sequence[str] | None = None,
    graphs: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Build an engine for each graph, verify it where this machine can run it, and add it to the bundle.

    The manifest is replaced once, after all of them: a build that is killed leaves the bundle as it was.

    Parameters
    ----------
    folder
        A bundle.
    target
        "tensorrt", "tensorrt-rtx" or "ort-tensorrt".
    settings
        Of TensorRT; not used for "ort-tensorrt".
    precisions, graphs
        None: every precision that the bundle holds; every graph but the decoders, which are sums over voxels.

    Raises
    ------
    MindDiffuserError
        See :func:`~.to_trt.build_plan`; a plan that runs here and is out of tolerance.
    """
    bundle = Bundle.open(folder)
    chosen = _chosen(bundle, precisions, graphs)
    with alone_in(bundle.folder):
        _tidy(bundle.folder, target)
        made: list[dict[str, Any]] = []
        for done, variant in enumerate(chosen):
            if progress is not None:
                progress(f"building {target} engines", done, len(chosen))
            made.append(_built(bundle, variant, target, settings, progress))
        if progress is not None:
            progress(f"building {target} engines", len(chosen), len(chosen))
        _publish(bundle, target, chosen, made)
        _tidy(bundle.folder, target)
    (bundle.folder / ".lock").unlink(missing_ok=True)
    return Bundle.open(folder)


def _chosen(bundle: Bundle, precisions: Sequence[str] | None, graphs: Sequence[str] | None) -> list[Variant]:
    names = graphs if graphs is not None else [name for name in bundle.graphs if not name.startswith(DECODE)]
    bundle.require(*names)
    held = [v for name in names for v in bundle.graphs[name].variants if v.target == "onnx"]
    # int8 graphs are quantised for the CPU; TensorRT refuses their integer biases.
    found = [v for v in held if v.precision != "int8" and (precisions is None or v.precision in precisions)]
    if not found:
        there = ", ".join(sorted({v.precision for v in held})) or "none"
        raise InputError(
            f"the bundle {bundle.folder} holds no graph to build from in {', '.join(precisions or ('fp32',))} (it has "
            f"{there}): export it with --precision"
        )
    return found


def _built(
    bundle: Bundle, variant: Variant, target: str, settings: TrtSettings | None, progress: Progress | None
) -> dict[str, Any]:
    if target == ORT_TENSORRT or settings is None:
        return _cached_by_ort(bundle, variant)
    folder = bundle.folder / "engines" / target
    draft = folder / f".{variant.graph}.{variant.precision}.{os.getpid()}.draft"
    folder.mkdir(exist_ok=True)
    listed = {path.name: bundle.files[_relative(bundle, path)].sha256 for path in (variant.file, *variant.data)}
    try:
        identity = build_plan(
            variant.file,
            draft,
            settings,
            progress=progress,
            hashes=listed,
            label=f"{variant.graph} {variant.precision}",
        )
        # Named by its content, so that a plan that it replaces stays whole until the manifest says so.
        path = folder / f"{variant.graph}.{variant.precision}.{sha256_of(draft)[:12]}.plan"
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sizes = settings.profile.get("batch")
    return {
        "target": target,
        "precision": variant.precision,
        "file": _relative(bundle, path),
        "data": [],
        "opset": variant.opset,
        "batch_sizes": None if sizes is None else sorted(set(sizes)),
        "parity": {"verified": "the graph that it was built from", "graph": variant.parity},
        "precision_map": variant.precision_map,
        "builder": identity,
    }


def _cached_by_ort(bundle: Bundle, variant: Variant) -> dict[str, Any]:
    """Let ONNX Runtime's TensorRT provider build its engine into the bundle's cache, by running the graph once."""
    cache = bundle.folder / ORT_CACHE
    cache.mkdir(exist_ok=True)
    described = bundle.graphs[variant.graph]
    feeds, _ = case_of(variant.graph, read_tensors(bundle.path(PARITY), "the bundle's reference outputs"))
    settings = OrtSettings(provider="tensorrt", cache=cache)
    with open_ort(variant.graph, variant.file, described.inputs, described.outputs, settings) as engine:
        engine.run(feeds)
    return {
        "target": ORT_TENSORRT,
        "precision": variant.precision,
        "file": _relative(bundle, variant.file),
        "data": [_relative(bundle, path) for path in variant.data],
        "opset": variant.opset,
        "batch_sizes": None,
        "parity": {"verified": "the graph that it was built from", "graph": variant.parity},
        "precision_map": variant.precision_map,
        "builder": {"target": ORT_TENSORRT, "cache": ORT_CACHE},
    }


def _publish(bundle: Bundle, target: str, chosen: Sequence[Variant], made: Sequence[dict[str, Any]]) -> None:
    """Verify the new engines where they run here, then write the manifest, once."""
    path = bundle.folder / MANIFEST
    files = _new_files(bundle, target, made)
    for variant, entry in zip(chosen, made, strict=True):
        parity = _verified(bundle, variant, entry, files)
        if parity is not None:
            entry["parity"] = parity
    before = read_json(path, "the bundle's manifest")
    write_json(path, sealed(_with(before, target, chosen, made, files)))


def _new_files(bundle: Bundle, target: str, made: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    paths = {bundle.folder / entry["file"] for entry in made}
    if target == ORT_TENSORRT:
        paths |= {path for path in (bundle.folder / ORT_CACHE).iterdir() if path.is_file()}
    return {_relative(bundle, path): {"sha256": sha256_of(path), "size": path.stat().st_size} for path in paths}


def _tidy(folder: Path, target: str) -> None:
    """Take away drafts and plans that the manifest does not list: what was replaced, or left by a killed build."""
    listed = read_json(folder / MANIFEST, "the bundle's manifest")["files"]
    there = folder / "engines" / target
    for path in (*there.glob(".*.draft"), *there.glob("*.plan")):
        if path.relative_to(folder).as_posix() not in listed:
            path.unlink(missing_ok=True)


def _with(
    before: Mapping[str, Any],
    target: str,
    chosen: Sequence[Variant],
    made: Sequence[dict[str, Any]],
    new_files: Mapping[str, Any],
) -> dict[str, Any]:
    graphs = {name: {**graph, "variants": list(graph["variants"])} for name, graph in before["graphs"].items()}
    files = dict(before["files"])
    for variant, entry in zip(chosen, made, strict=True):
        variants = graphs[variant.graph]["variants"]
        for old in [v for v in variants if v["target"] == target and v["precision"] == variant.precision]:
            variants.remove(old)
            if old["file"] != entry["file"] and old["file"].endswith(".plan"):
                files.pop(old["file"], None)
        variants.append(entry)
    return {**before, "graphs": graphs, "files": dict(sorted({**files, **new_files}.items()))}


def _verified(
    bundle: Bundle, source: Variant, entry: Mapping[str, Any], files: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Figures of a new engine that is not in the manifest yet; None where it does not run here."""
    variant = replace(
        source,
        target=entry["target"],
        file=bundle.folder / entry["file"],
        data=tuple(bundle.folder / name for name in entry["data"]),
        batch_sizes=None if entry["batch_sizes"] is None else tuple(entry["batch_sizes"]),
        builder=entry["builder"],
    )
    if why_not_here(variant) is not None:
        return None
    graph = bundle.graphs[variant.graph]
    listed = {name: Listed(sha256=file["sha256"], size=file["size"]) for name, file in files.items()}
    draft = replace(
        bundle,
        files={**bundle.files, **listed},
        graphs={**bundle.graphs, graph.name: replace(graph, variants=(*graph.variants, variant))},
    )
    reference = read_tensors(bundle.path(PARITY), "the bundle's reference outputs")
    feeds, expected = fitted(draft, variant, *case_of(variant.graph, reference))
    tolerance = TOLERANCES[variant.precision]
    spread = spread_of(reference, variant)
    measured, reason = compare(run_variant(draft, variant, feeds, None), expected, tolerance, spread)
    if reason is not None:
        raise failed(f"{variant.graph} ({variant.target})", variant.precision, reason)
    return {
        "verified": "run",
        "reference": "PyTorch float32",
        "tolerance": tolerance.worst,
        "reason": tolerance.reason,
        "inputs": {"decoded": {name: part.as_dict() for name, part in measured.items()}},
    }


def _relative(bundle: Bundle, path: Path) -> str:
    return path.relative_to(bundle.folder).as_posix()
