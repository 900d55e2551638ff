"""Which engines of a bundle run on this machine, and why the others do not: for run, check and inspect alike."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

from ..bundle.manifest import DECODE, Graph, Variant, native_files
from ..bundle.open import Bundle
from ..errors import MindDiffuserError
from .cuda.gpu import Gpu
from .trust import Trust

# backend -> the target of the files that it runs, fastest first: the order in which "auto" looks.
BACKENDS: dict[str, str] = {
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt-rtx",
    "ort-tensorrt": "ort-tensorrt",
    "ort-cuda": "onnx",
    "ort": "onnx",
}
# What ONNX Runtime's backends run on; see OrtSettings.
PROVIDER_OF = {"ort": "cpu", "ort-cuda": "cuda", "ort-tensorrt": "tensorrt"}
ABSENT = "not in the bundle"
NO_GPU = "no NVIDIA GPU was found"
NO_BF16 = "ONNX Runtime has no bfloat16 kernels on a CPU"


class Machine:
    """What engines find here. Each is looked up at its first use, since finding a GPU may import PyTorch.

    Parameters
    ----------
    trust
        Whose plans may run.
    gpu
        Finds the GPU, or gives None; the machine's own when None.
    """

    def __init__(self, trust: Trust | None = None, gpu: Callable[[], Gpu | None] | None = None) -> None:
        self.trust = trust or Trust()
        self._find = gpu
        self._known: dict[str, Mapping[str, Any]] = {}

    @cached_property
    def gpu(self) -> Gpu | None:
        if self._find is not None:
            return self._find()
        from .cuda import gpu as cuda_gpu

        return cuda_gpu.find_gpu()

    @cached_property
    def _trusted(self) -> Collection[str]:
        return self.trust.listed()

    def trusts(self, hashes: Collection[str]) -> bool:
        """Whether code with all these SHA-256 may run, by the list as it was at its first use."""
        return self.trust.everything or (bool(hashes) and set(hashes) <= set(self._trusted))

    def lacks_gpu(self, backend: str) -> bool:
        """Whether no GPU was found; where no library can look for one, ONNX Runtime may still find it."""
        return self.gpu is None and (not backend.startswith("ort") or self._find is not None or _can_look())

    def identity(self, target: str) -> Mapping[str, Any]:
        """What a plan is compared with; see :func:`.tensorrt.identity.this_machine`."""
        if target not in self._known:
            from .tensorrt.identity import this_machine

            self._known[target] = this_machine(target, self.gpu)
        return self._known[target]


def _can_look() -> bool:
    return any(importlib.util.find_spec(name) is not None for name in ("torch", "cuda"))


def why_no_provider(backend: str) -> str | None:
    """Why this onnxruntime cannot be a backend ("ort", "ort-cuda", "ort-tensorrt"), or None."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed: pip install 'minddiffuser[edge]'"
    if backend == "ort":  # in every build; not worth the import
        return None
    import onnxruntime

    from .ort.engine import PROVIDERS

    if PROVIDERS[PROVIDER_OF[backend]] in onnxruntime.get_available_providers():
        return None
    return (
        "onnxruntime is a build without it: where there is an NVIDIA GPU, pip install 'minddiffuser[gpu]' in an "
        "environment without the plain onnxruntime"
    )


def why_not(bundle: Bundle, variant: Variant, backend: str, machine: Machine) -> str | None:
    """Why an engine does not run here on a backend of its target, in one sentence; None where it does.

    Nothing of a plan is loaded to find out.
    """
    if backend.startswith("ort") and (reason := why_no_provider(backend)) is not None:
        return reason
    if backend == "ort":
        return NO_BF16 if variant.precision == "bf16" else None
    if machine.lacks_gpu(backend):
        return NO_GPU
    if backend == "ort-cuda":
        return None
    try:
        unfit = _unfit_cache if variant.target == "ort-tensorrt" else _unfit_plan
        return unfit(bundle, variant, machine) or _untrusted(bundle, variant, machine)
    except MindDiffuserError as error:  # of the list of trusted plans
        return str(error)


def _unfit_plan(bundle: Bundle, variant: Variant, machine: Machine) -> str | None:
    from .tensorrt.identity import check_plan

    onnx = source_of(bundle, variant)
    graph = {} if onnx is None else hashes_of(bundle, onnx)
    here = machine.identity(variant.target)
    return check_plan(variant.builder, here, graph_sha256=graph.get("sha256"), data=graph.get("data"))


def source_of(bundle: Bundle, variant: Variant) -> Variant | None:
    """The ONNX graph that an engine was built from, where the bundle has it."""
    held = bundle.graphs[variant.graph].variants
    return next((v for v in held if v.target == "onnx" and v.precision == variant.precision), None)


def hashes_of(bundle: Bundle, onnx: Variant) -> dict[str, Any]:
    """The SHA-256 of an ONNX graph and of its data files by name, as engines that are built from it keep them."""
    listed = {path: bundle.files.get(path.relative_to(bundle.folder).as_posix()) for path in (onnx.file, *onnx.data)}
    hashes = {path.name: entry.sha256 for path, entry in listed.items() if entry is not None}
    return {"sha256": hashes.pop(onnx.file.name, None), "data": hashes}


def ort_identity(gpu: Gpu | None) -> dict[str, Any]:
    """What ONNX Runtime's TensorRT engines are built for: this release of it and of TensorRT, this GPU and platform.

    TensorRT's is None where it cannot be asked: ONNX Runtime may bring its own.
    """
    import onnxruntime

    from .tensorrt.library import library_version

    return {
        "onnxruntime": str(onnxruntime.__version__),
        "tensorrt": library_version("tensorrt"),
        "gpu": gpu.name if gpu else None,
        "compute_capability": gpu.compute_capability if gpu else None,
        "platform": f"{sys.platform}-{platform.machine()}".lower(),
    }


def _unfit_cache(bundle: Bundle, variant: Variant, machine: Machine) -> str | None:
    rebuild = "build it here with md-export build BUNDLE --target ort-tensorrt"
    if profile_of(variant) is None or not native_files(variant, bundle.folder, bundle.files):
        return f"the bundle holds no usable engine of ONNX Runtime's TensorRT provider for {variant.graph}: {rebuild}"
    here = ort_identity(machine.gpu)
    if machine.gpu is None:  # and nothing to look with: ONNX Runtime itself says what is missing
        here = {name: here[name] for name in ("onnxruntime", "tensorrt", "platform")}
    if here["tensorrt"] is None or not isinstance(variant.builder.get("tensorrt"), str):  # not known on both sides
        del here["tensorrt"]
    for name, present in here.items():
        if variant.builder.get(name) != present:
            return f"the engine of {variant.graph} was built with another {name} than {present}: {rebuild}"
    if variant.builder.get("graph") != hashes_of(bundle, variant):
        return f"the engine of {variant.graph} was built from another version of its ONNX graph: {rebuild}"
    return None


def profile_of(variant: Variant) -> tuple[int, int, int] | None:
    """The (smallest, usual, largest) batch that an engine was built for, where its description says so."""
    profile = variant.builder.get("profile")
    sizes = profile.get("batch") if isinstance(profile, Mapping) else None
    whole = isinstance(sizes, list) and len(sizes) == 3 and all(type(size) is int for size in sizes)
    if not whole or not 1 <= sizes[0] <= sizes[1] <= sizes[2] < 1 << 31:  # type: ignore[index]
        return None
    return (sizes[0], sizes[1], sizes[2])  # type: ignore[index]


def _untrusted(bundle: Bundle, variant: Variant, machine: Machine) -> str | None:
    names = native_files(variant, bundle.folder, bundle.files)
    if machine.trusts([bundle.files[name].sha256 for name in names if name in bundle.files]):
        return None
    return (
        f"the engine of {variant.graph} is code for this machine that was not built here and is not trusted: if you "
        f"trust who made it, md-export trust {bundle.folder.name}"
    )


def backend_of(bundle: Bundle, graph: str, backend: str) -> str:
    """The backend of one graph where the networks run on `backend`.

    Decoders are small and take and give the host's arrays: they run on the CPU, unless they have
    plans as the networks have.
    """
    targets = {variant.target for variant in bundle.graphs[graph].variants}
    on_host = backend.startswith("ort") or BACKENDS[backend] not in targets
    return "ort" if graph.startswith(DECODE) and on_host else backend


def pick(bundle: Bundle, graph: str, backend: str, precision: str, machine: Machine) -> Variant | str:
    """The engine that a graph runs from, or in one sentence why there is none.

    Parameters
    ----------
    backend
        Of the networks, a name of `BACKENDS`.
    precision
        "auto" takes the narrowest that runs on a GPU, and float32 on a CPU where there is one.
    """
    on = backend_of(bundle, graph, backend)
    held = [v for v in bundle.graphs[graph].variants if v.target == BACKENDS[on]]
    if not held:
        return lacking(bundle, backend, [graph])
    if precision == "auto":
        narrow = ("fp32", "int8", "fp16", "bf16") if on == "ort" else ("fp16", "bf16", "fp32", "int8")
        wanted = sorted(held, key=lambda v: narrow.index(v.precision))
    else:
        # A graph that has no variant of that precision was left in float32 when the bundle was made: not the reason
        # where no graph has one.
        names = (precision, "fp32") if _holds(bundle, BACKENDS[backend], precision) else (precision,)
        wanted = [v for name in names for v in held if v.precision == name][:1]
    if not wanted:
        there = ", ".join(v.precision for v in held)
        return f"the bundle {bundle.folder} has {graph} in {there}, but {precision} was requested: choose one of these"
    reasons = []
    for variant in wanted:
        reason = why_not(bundle, variant, on, machine)
        if reason is None:
            return variant
        reasons.append(reason)
    return reasons[0]


def _holds(bundle: Bundle, target: str, precision: str) -> bool:
    return any(v.target == target and v.precision == precision for v in bundle.variants)


def lacking(bundle: Bundle, backend: str, graphs: Collection[str]) -> str:
    """The sentence for graphs without an engine of a backend's target."""
    target, names = BACKENDS[backend], " ".join(graphs)
    cure = "export the bundle again"
    if target != "onnx":
        cure = f"md-export build {bundle.folder.name} --target {target} --graphs {names}"
    return f"the bundle has no {' and no '.join(graphs)} for the backend {backend!r}: {cure}"


def runs_on(graph: Graph, target: str) -> bool:
    """Whether a graph has an engine of a target, or is a decoder, which the CPU runs."""
    return graph.name.startswith(DECODE) or any(variant.target == target for variant in graph.variants)


def why_not_backend(
    bundle: Bundle, backend: str, machine: Machine, *, precision: str = "auto", graphs: Collection[str] | None = None
) -> str | None:
    """Why a backend does not run a bundle here, in one sentence; None where it does.

    Parameters
    ----------
    graphs
        What is to run; None: everything that the bundle holds.
    """
    target, needed = BACKENDS[backend], list(bundle.graphs) if graphs is None else list(graphs)
    if not any(v.target == target for v in bundle.variants):
        return ABSENT
    # The cheapest question first; of everything else pick() knows more.
    if backend.startswith("ort") and (reason := why_no_provider(backend)) is not None:
        return reason
    missing = [name for name in needed if not runs_on(bundle.graphs[name], target)]
    if missing:
        return lacking(bundle, backend, missing)
    if backend != "ort" and machine.lacks_gpu(backend):  # though decoders alone would run on the CPU
        return NO_GPU
    for name in needed:
        picked = pick(bundle, name, backend, precision, machine)
        if isinstance(picked, str):
            return picked
    return None
