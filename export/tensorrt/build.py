"""Engines built from a bundle's graphs for one kind of GPU, added to the bundle: what ``md-export build`` does."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...runtime.bundle.manifest import DECODE, MANIFEST, ORT_CACHE, PARITY, Graph, Listed, Variant, sealed
from ...runtime.bundle.open import Bundle
from ...runtime.engines.cuda import gpu as cuda_gpu
from ...runtime.engines.here import Machine, hashes_of, ort_identity, why_no_provider
from ...runtime.engines.ort.engine import OrtSettings, open_ort
from ...runtime.engines.tensorrt.library import TrtFailure, load_library
from ...runtime.engines.trust import Trust, trust_plans
from ...runtime.errors import FileError, InputError, MissingExtra
from ...runtime.files import read_json, read_tensors, sha256_of, write_json
from ...runtime.locks import beside, locked
from ...runtime.progress import unheard
from ..bundle.placement import take_built
from ..verify.check import backend_for, case_of, contexts_of, fitted, rows_of, running, spread_of
from ..verify.parity import TOLERANCES, compare, failed
from .plan import build_plan, check_machine
from .settings import Sizes, TrtSettings

Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]
ORT_TENSORRT = "ort-tensorrt"
BATCH: Sizes = (1, 1, 16)


def build_engines(
    folder: Path,
    target: str,
    settings: TrtSettings | Sizes | None,
    *,
    precisions: Sequence[str] | None = None,
    graphs: Sequence[str] | None = None,
    trust_list: Path | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Bundle:
    """Build an engine for each graph, verify it where this machine can run it, and add it to the bundle.

    The manifest is replaced once, after all of them: a build that is killed leaves the bundle as it was. Built engines
    that are damaged do not stand in the way: they are built again, or taken out.

    Parameters
    ----------
    folder
        A bundle.
    target
        "tensorrt", "tensorrt-rtx" or "ort-tensorrt".
    settings
        Of TensorRT; for "ort-tensorrt" the smallest, usual and largest number of trials at once, or None.
    precisions, graphs
        None: every precision that the bundle holds; every graph but the decoders, which cost little.
    trust_list
        Where this user's list of trusted plans lies: what is built here is added to it. None keeps no list.
    say
        Receives a line on every engine that is damaged.

    Raises
    ------
    MindDiffuserError
        See :func:`~.plan.build_plan`; a plan that runs here and is out of tolerance; another process that is working
        in the bundle, or a folder that cannot be written.
    """
    check_target(target, settings)
    bundle = Bundle.open(folder, verify=False, on_damaged=unheard)  # a lock is made beside bundles alone
    _chosen(bundle, precisions, graphs)
    if trust_list is not None:
        trust_plans(trust_list, {})  # or the list would turn out to be damaged after an hour of building
    with locked(beside(bundle.folder), bundle.folder):
        return add_engines(
            bundle.folder,
            target,
            settings,
            trust_list,
            progress or unheard,
            say or unheard,
            precisions=precisions,
            graphs=graphs,
        )


def check_target(target: str, settings: TrtSettings | Sizes | None) -> None:
    """Refuse, before anything is read or written, what this machine cannot build.

    Raises
    ------
    MindDiffuserError
        A library, or the GPU, is missing.
    """
    if not isinstance(settings, TrtSettings):
        reason = why_no_provider(ORT_TENSORRT)
        if reason is not None:
            raise MissingExtra(f"the target {ORT_TENSORRT} is built by ONNX Runtime's TensorRT provider: {reason}")
        return
    load_library(target)
    check_machine(settings, cuda_gpu.find_gpu())
    cache = settings.timing_cache
    if cache is not None and cache.exists() and not cache.is_dir():
        raise FileError(f"the timing cache {cache} is a file: give a folder, which is made where it is missing")


def add_engines(
    folder: Path,
    target: str,
    settings: TrtSettings | Sizes | None,
    trust_list: Path | None,
    progress: Progress,
    say: Say = unheard,
    *,
    precisions: Sequence[str] | None = None,
    graphs: Sequence[str] | None = None,
) -> Bundle:
    """Do the work of :func:`build_engines` with the bundle's lock held."""
    damaged: dict[str, str] = {}
    bundle = Bundle.open(folder, on_damaged=damaged.__setitem__)
    chosen = _chosen(bundle, precisions, graphs)
    for name, reason in damaged.items():
        again = name.startswith(f"engines/{target}/") and any(_is_of(name, variant) for variant in chosen)
        cure = "it is built again" if again else "it is removed from the bundle"
        say(f"{cure}: {reason.partition(': ')[0]}")
    try:
        (bundle.folder / "engines" / target).mkdir(parents=True, exist_ok=True)
        _tidy(bundle.folder)
        made: list[dict[str, Any]] = []
        for done, variant in enumerate(chosen):
            progress(f"building {target} engines", done, len(chosen))
            made.append(_built(bundle, variant, target, settings, progress))
        progress(f"building {target} engines", len(chosen), len(chosen))
        _publish(bundle, target, chosen, made, trust_list)
        _tidy(bundle.folder)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            f"the bundle {bundle.folder} cannot be written ({error.strerror or error}): change its permissions or "
            "free some space, or build in a copy of it"
        ) from error
    return Bundle.open(folder)


def _is_of(name: str, variant: Variant) -> bool:
    return name.split("/")[2].startswith(f"{variant.graph}.{variant.precision}.")


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
    bundle: Bundle,
    variant: Variant,
    target: str,
    settings: TrtSettings | Sizes | None,
    progress: Progress,
) -> dict[str, Any]:
    if not isinstance(settings, TrtSettings):
        return _cached_by_ort(bundle, variant, settings or BATCH)
    folder = bundle.folder / "engines" / target
    draft = folder / f".{variant.graph}.{variant.precision}.{os.getpid()}.draft"
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
    return _entry(bundle, variant, target, path, settings.profile.get("batch"), identity)


def _entry(
    bundle: Bundle, variant: Variant, target: str, file: Path, batch: Sizes | None, builder: Mapping[str, Any]
) -> dict[str, Any]:
    """What the manifest says of an engine that was built from a variant; a plan has its weights inside."""
    return {
        "target": target,
        "precision": variant.precision,
        "file": _relative(bundle, file),
        "data": [_relative(bundle, path) for path in variant.data] if file == variant.file else [],
        "opset": variant.opset,
        "batch_sizes": None if batch is None else sorted(set(batch)),
        "parity": {"verified": "the graph that it was built from", "graph": variant.parity},
        "precision_map": variant.precision_map,
        "builder": dict(builder),
    }


def _cached_by_ort(bundle: Bundle, variant: Variant, batch: Sizes) -> dict[str, Any]:
    """Let ONNX Runtime's TensorRT provider build its engine by running the graph once.

    Into a folder of its own: it would load what it finds there, and what lies in the bundle may be a stranger's.
    """
    root = bundle.folder / ORT_CACHE
    draft = root / f".{variant.graph}.{variant.precision}.{os.getpid()}.draft"
    described = bundle.graphs[variant.graph]
    reference = read_tensors(bundle.path(PARITY), "the bundle's reference outputs")
    feeds, _ = fitted(bundle, replace(variant, batch_sizes=batch), *case_of(variant.graph, reference))
    settings = OrtSettings(provider="tensorrt", cache=draft, profile=batch)
    draft.mkdir()
    try:
        specs = described.inputs, described.outputs
        with open_ort(variant.graph, variant.file, *specs, settings, precision=variant.precision) as engine:
            engine.run(feeds)
        hashes = {path.name: sha256_of(path) for path in sorted(draft.iterdir())}
        if not hashes:
            raise TrtFailure(f"ONNX Runtime's TensorRT provider built no engine of {variant.graph}: try tensorrt")
        digest = hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()[:12]
        folder = root / f"{variant.graph}.{variant.precision}.{digest}"
        take_built(bundle.folder, folder)  # the very same, or left by a killed build
        if folder.exists():
            raise FileError(f"{folder} holds a file that is not of the bundle: move it away")
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    builder = {
        "target": ORT_TENSORRT,
        "cache": _relative(bundle, folder),
        "profile": {"batch": list(batch)},
        "graph": hashes_of(bundle, variant),
        **ort_identity(cuda_gpu.find_gpu()),
    }
    return _entry(bundle, variant, ORT_TENSORRT, variant.file, batch, builder)


def _publish(
    bundle: Bundle,
    target: str,
    chosen: Sequence[Variant],
    made: Sequence[dict[str, Any]],
    trust_list: Path | None,
) -> None:
    """Verify the new engines where they run here, then write the manifest, once."""
    path = bundle.folder / MANIFEST
    files = {name: entry for made_one in made for name, entry in _new_files(bundle, made_one).items()}
    if trust_list is not None:  # before they are run: they were built here, whatever they turn out to compute
        native = {name: entry["sha256"] for name, entry in files.items() if name.startswith(f"engines/{target}/")}
        trust_plans(trust_list, {sha256: f"{name} of {bundle.folder}" for name, sha256 in native.items()})
    for variant, entry in zip(chosen, made, strict=True):
        parity = _verified(bundle, variant, entry, files)
        if parity is not None:
            entry["parity"] = parity
    before = read_json(path, "the bundle's manifest")
    write_json(path, sealed(_with(_without_damaged(before, bundle), target, chosen, made, files)))


def _new_files(bundle: Bundle, entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    paths = [bundle.folder / entry["file"]]
    if entry["target"] == ORT_TENSORRT:
        paths += [path for path in (bundle.folder / entry["builder"]["cache"]).iterdir() if path.is_file()]
    return {_relative(bundle, path): {"sha256": sha256_of(path), "size": path.stat().st_size} for path in paths}


def _tidy(folder: Path) -> None:
    """Take away what a build has named and the manifest does not list: what was replaced, or left by a killed one."""
    listed = read_json(folder / MANIFEST, "the bundle's manifest")["files"]
    for path in folder.glob("engines/*/*"):
        name = path.relative_to(folder).as_posix()
        used = name in listed or any(other.startswith(f"{name}/") for other in listed)
        if not used:
            take_built(folder, path)


def _without_damaged(manifest: Mapping[str, Any], bundle: Bundle) -> dict[str, Any]:
    """The manifest as far as the opened bundle goes, from which damaged engines were left out."""
    graphs = {}
    for name, graph in manifest["graphs"].items():
        whole = {(v.target, v.precision, v.file.name) for v in bundle.graphs[name].variants}
        variants = [
            v for v in graph["variants"] if (v["target"], v["precision"], v["file"].rpartition("/")[2]) in whole
        ]
        graphs[name] = {**graph, "variants": variants}
    files = {name: entry for name, entry in manifest["files"].items() if name in bundle.files}
    return {**manifest, "graphs": graphs, "files": files}


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
            start = f"engines/{target}/{variant.graph}.{variant.precision}."
            files = {name: listed for name, listed in files.items() if not name.startswith(start)}
        variants.append(entry)
    return {**before, "graphs": graphs, "files": dict(sorted({**files, **new_files}.items()))}


def _verified(
    bundle: Bundle, source: Variant, entry: Mapping[str, Any], files: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Parity of a new engine that is not in the manifest yet; None where it does not run here."""
    variant = replace(
        source,
        target=entry["target"],
        file=bundle.folder / entry["file"],
        data=tuple(bundle.folder / name for name in entry["data"]),
        batch_sizes=None if entry["batch_sizes"] is None else tuple(entry["batch_sizes"]),
        builder=entry["builder"],
    )
    graph = bundle.graphs[variant.graph]
    listed = {name: Listed(sha256=file["sha256"], size=file["size"]) for name, file in files.items()}
    draft = replace(
        bundle,
        files={**bundle.files, **listed},
        graphs={**bundle.graphs, graph.name: replace(graph, variants=(*_others(graph, variant), variant))},
    )
    trust = Trust(everything=True)  # what was built just now
    backend, _ = backend_for(draft, variant, Machine(trust))
    if backend is None:
        return None
    reference = read_tensors(bundle.path(PARITY), "the bundle's reference outputs")
    feeds, expected = fitted(draft, variant, *case_of(variant.graph, reference))
    tolerance = TOLERANCES[variant.precision]
    spread = spread_of(reference, variant)
    with running(draft, variant, backend, None, trust) as run:
        measured, reason = compare(run(feeds), expected, tolerance, spread, contexts_of(draft, variant.graph))
        rows = rows_of(draft, variant, run, feeds, expected, spread)
    reason = reason or rows.reason
    if reason is not None:
        raise failed(f"{variant.graph} ({variant.target})", variant.precision, reason)
    return {
        "verified": "run",
        "reference": "PyTorch float32",
        "tolerance": tolerance.worst,
        "reason": tolerance.reason,
        "inputs": {"decoded": {name: part.as_dict() for name, part in measured.items()}},
    }


def _others(graph: Graph, variant: Variant) -> list[Variant]:
    """The engines of a graph that a new one does not replace."""
    return [v for v in graph.variants if (v.target, v.precision) != (variant.target, variant.precision)]


def _relative(bundle: Bundle, path: Path) -> str:
    return path.relative_to(bundle.folder).as_posix()
