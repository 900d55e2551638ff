"""Which engine runs a graph: chosen by what the bundle holds and the machine has, told, and never another."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..bundle_schema import DECODE
from ..errors import InputError, MindDiffuserError, check_choice
from .base import Engine
from .contract import check_contract
from .ort import PROVIDERS, OrtSettings, open_ort

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..bundle_schema import Graph, Variant

# backend -> the target of the files that it runs, fastest first: the order in which "auto" looks.
BACKENDS: dict[str, str] = {
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt-rtx",
    "ort-tensorrt": "ort-tensorrt",
    "ort-cuda": "onnx",
    "ort": "onnx",
}
PRECISIONS = ("fp16", "bf16", "fp32", "int8")
# What ONNX Runtime's backends run on; see OrtSettings.
_PROVIDERS = {"ort": "cpu", "ort-cuda": "cuda", "ort-tensorrt": "tensorrt"}
ORT_CACHE = "engines/ort-tensorrt/"
"""Where a bundle keeps the engines that ONNX Runtime's TensorRT provider has built."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What to run a bundle on.

    Attributes
    ----------
    backend : str
        "auto", or a name of `BACKENDS`.
    precision : str
        "auto" takes the narrowest that the bundle holds on a GPU, and float32 on a CPU where there is one.
    threads : int or None
        CPU threads.
    share_threads : bool
        One pool of threads for all graphs; see :class:`~minddiffuser.runtime.engines.ort.OrtSettings`.
    memory : str
        "fast" or "low"; see :class:`~minddiffuser.runtime.engines.ort.OrtSettings`.
    memory_limit_bytes : int or None
        Of the GPU's memory, for each graph; ONNX Runtime only.
    cache : Path or None
        Where TensorRT-RTX keeps what it compiles for this GPU.

    Raises
    ------
    InputError
        An unknown name, or a number outside its range.
    """

    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    share_threads: bool = False
    memory: str = "fast"
    memory_limit_bytes: int | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        check_choice("backend", self.backend, ("auto", *BACKENDS))
        check_choice("precision", self.precision, ("auto", *PRECISIONS))
        self.ort("cpu")

    def ort(self, provider: str) -> OrtSettings:
        """The same for a session of ONNX Runtime."""
        return OrtSettings(
            provider=provider,
            threads=self.threads,
            share_threads=self.share_threads,
            memory=self.memory,
            memory_limit_bytes=self.memory_limit_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A backend, and why it was taken."""

    backend: str
    reason: str


def choose_backend(bundle: Bundle, wanted: str, gpu: Callable[[], Any] | None = None) -> Choice:
    """Choose the backend of a bundle's networks.

    Parameters
    ----------
    wanted
        "auto", or a name of `BACKENDS`: then that one, or an error.
    gpu
        Finds the GPU, or gives None; the machine's own when None.

    Raises
    ------
    InputError
        The bundle holds no engine for the wanted backend, or this machine has no GPU for it.
    """
    held = {variant.target for graph in bundle.graphs.values() for variant in graph.variants}
    if wanted != "auto":
        _check_wanted(bundle, wanted, held, gpu or _find_gpu)
        return Choice(backend=wanted, reason="asked for")
    refused: list[str] = []
    for backend, target in BACKENDS.items():
        reason = _why_not(backend, target, held, bundle, gpu or _find_gpu)
        if reason is None:
            because = f"; {'; '.join(refused)}" if refused else ""
            return Choice(backend=backend, reason=f"the fastest that is here{because}")
        refused.append(f"{backend}: {reason}")
    raise InputError(
        f"no engine of the bundle {bundle.folder} runs here ({'; '.join(refused)}): build one for this machine"
    )


def _check_wanted(bundle: Bundle, wanted: str, held: set[str], gpu: Callable[[], Any]) -> None:
    if BACKENDS[wanted] not in held:
        raise InputError(
            f"the bundle {bundle.folder} holds engines for {', '.join(sorted(held))}, the backend {wanted!r} needs "
            f"{BACKENDS[wanted]}: md-export build {bundle.folder.name} --target {BACKENDS[wanted]}"
        )
    # ONNX Runtime says by itself which of provider, driver and GPU is missing.
    if not wanted.startswith("ort") and gpu() is None:
        raise InputError(f"the backend {wanted!r} needs an NVIDIA GPU and none was found: choose the backend ort")


def _why_not(backend: str, target: str, held: set[str], bundle: Bundle, gpu: Callable[[], Any]) -> str | None:
    if target not in held:
        return "not in the bundle"
    if backend.startswith("ort"):
        reason = why_no_provider(backend)
        if backend == "ort" or reason is not None:
            return reason
    found = gpu()  # asked last: finding out may import PyTorch
    if found is None:
        return "no GPU"
    lacking = [name for name, graph in bundle.graphs.items() if not _runs(graph, target)]
    if lacking:
        return f"the bundle has no engine of {', '.join(lacking)}"
    if backend.startswith("ort"):
        return None
    from .trt_identity import check_plan, this_machine

    try:
        here = this_machine(target, found)
    except MindDiffuserError as error:
        return str(error)
    plans = [variant for graph in bundle.graphs.values() for variant in graph.variants if variant.target == target]
    return next((reason for plan in plans if (reason := check_plan(plan.builder, here)) is not None), None)


def _runs(graph: Graph, target: str) -> bool:
    """Whether a graph has an engine of a target, or is a decoder, which the CPU runs."""
    return graph.name.startswith(DECODE) or any(variant.target == target for variant in graph.variants)


def why_no_provider(backend: str) -> str | None:
    """Why this onnxruntime cannot be a backend ("ort", "ort-cuda", "ort-tensorrt"), or None."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed"
    if backend == "ort":  # in every build; not worth the import
        return None
    import onnxruntime

    there = PROVIDERS[_PROVIDERS[backend]] in onnxruntime.get_available_providers()
    return None if there else "onnxruntime is a build without it"


def _find_gpu() -> Any:
    from .cuda_gpu import find_gpu

    return find_gpu()


class EngineSet:
    """The engines of a bundle, opened when first asked for, on one device with shared threads and scratch memory.

    Parameters
    ----------
    bundle : Bundle
    settings : EngineSettings
    shares : bool
        Whether plans run on one device and one arena, which end with the set; False gives each its own.

    Raises
    ------
    InputError
        See :func:`choose_backend`.
    """

    def __init__(self, bundle: Bundle, settings: EngineSettings | None = None, *, shares: bool = True) -> None:
        self._shares = shares
        self.bundle, self.settings = bundle, settings or EngineSettings()
        self.choice = choose_backend(bundle, self.settings.backend)
        self._open: dict[str, Engine] = {}
        self._stack = ExitStack()
        self._cuda: Any = None
        self._arena: Any = None
        self._loop: Any = None
        self._cache: Path | None = None

    def __getitem__(self, graph: str) -> Engine:
        """The engine of a graph.

        Raises
        ------
        MindDiffuserError
            It is not in the bundle, or cannot run here.
        """
        if graph not in self._open:
            self.bundle.require(graph)
            self._open[graph] = self.open(self.variant(graph), self._backend(graph))
        return self._open[graph]

    def variant(self, graph: str) -> Variant:
        """The file that a graph runs from."""
        self.bundle.require(graph)
        backend = self._backend(graph)
        held = [v for v in self.bundle.graphs[graph].variants if v.target == BACKENDS[backend]]
        if not held:
            raise InputError(
                f"the bundle {self.bundle.folder} has no {graph} for the backend {backend!r}: "
                f"md-export build {self.bundle.folder.name} --target {BACKENDS[backend]}"
            )
        wanted = self.settings.precision
        if wanted == "auto":
            narrow = ("fp16", "bf16", "fp32", "int8") if backend != "ort" else ("fp32", "int8", "fp16", "bf16")
            return min(held, key=lambda v: narrow.index(v.precision))
        # A graph that has no variant of that precision was left in float32 when the bundle was made: not the reason
        # where no graph has one.
        for precision in (wanted, "fp32") if self._holds(wanted) else (wanted,):
            for variant in held:
                if variant.precision == precision:
                    return variant
        raise InputError(
            f"the bundle {self.bundle.folder} has {graph} in {', '.join(v.precision for v in held)}, asked for "
            f"{wanted}: choose one of these"
        )

    @property
    def largest_batch(self) -> int | None:
        """The most trials that every engine takes at once; None: any number."""
        target = BACKENDS[self.choice.backend]
        limits = [self.variant(name).batch_sizes for name, graph in self.bundle.graphs.items() if _runs(graph, target)]
        most = [max(sizes) for sizes in limits if sizes]
        return min(most) if most else None

    def loop(self) -> Callable[..., Any] | None:
        """All denoising steps as one recorded CUDA graph, where the backend is TensorRT; None elsewhere."""
        from .trt import TrtEngine

        denoise = self["denoise"]
        if not isinstance(denoise, TrtEngine):
            return None
        if self._loop is None:
            from .trt_loop import DenoiseLoop

            self._loop = DenoiseLoop(denoise, keep_latents=True)
            self._stack.callback(self._loop.close)
        loop = self._loop

        def run(latent: Any, table: Any, context: Any, uncond_context: Any, guidance: Any) -> list[Any]:
            latents = loop.run(latent, table, context=context, uncond_context=uncond_context, guidance=guidance)
            return [denoise.cuda.row(latents, step) for step in range(len(table) + 1)]

        return run

    def close(self) -> None:
        """Close every engine."""
        self._open.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _backend(self, graph: str) -> str:
        # Decoders are a few sums over voxels, which take and give the host's arrays: they run on the CPU, unless they
        # have plans as the networks have.
        targets = {variant.target for variant in self.bundle.graphs[graph].variants}
        chosen = self.choice.backend
        on_host = chosen.startswith("ort") or BACKENDS[chosen] not in targets
        return "ort" if graph.startswith(DECODE) and on_host else chosen

    def _holds(self, precision: str) -> bool:
        target = BACKENDS[self.choice.backend]
        variants = [variant for graph in self.bundle.graphs.values() for variant in graph.variants]
        return any(v.target == target and v.precision == precision for v in variants)

    def open(self, variant: Variant, backend: str | None = None) -> Engine:
        """Open one given engine, whatever the settings would choose (for verification); closed with the set."""
        return self._stack.enter_context(self._engine(variant, backend or self.choice.backend))

    def _engine(self, variant: Variant, backend: str) -> Engine:
        check_contract(self.bundle, variant.graph)
        graph = variant.graph
        described = self.bundle.graphs[graph]
        if backend.startswith("ort"):
            settings = self.settings.ort(_PROVIDERS[backend])
            if backend == "ort-tensorrt":
                settings = replace(settings, cache=self._ort_cache())
            return open_ort(
                graph, variant.file, described.inputs, described.outputs, settings, precision=variant.precision
            )
        return self._plan(graph, variant)

    def _ort_cache(self) -> Path:
        """A private copy of the bundle's engine cache: only verified files in it, and the bundle stays as it is."""
        if self._cache is None:
            self._cache = Path(self._stack.enter_context(TemporaryDirectory(prefix="minddiffuser-")))
            for name in self.bundle.files:
                if name.startswith(ORT_CACHE):
                    shutil.copyfile(self.bundle.path(name), self._cache / name.removeprefix(ORT_CACHE))
        return self._cache

    def _plan(self, graph: str, variant: Variant) -> Engine:
        if self.settings.memory_limit_bytes is not None:
            raise InputError(
                "memory_limit_bytes is for ONNX Runtime: a plan's memory was fixed when it was built (md-export build "
                "--workspace), leave it out"
            )
        from .cuda_device import open_device
        from .trt import open_trt
        from .trt_arena import Arena
        from .trt_plan import PlanFile

        if self._cuda is None and self._shares:
            self._cuda = open_device()
            self._stack.callback(self._cuda.close)
            self._arena = Arena(self._cuda)
            self._stack.callback(self._arena.release)
        described = self.bundle.graphs[graph]
        relative = variant.file.relative_to(self.bundle.folder).as_posix()
        onnx = next((v for v in described.variants if v.target == "onnx" and v.precision == variant.precision), None)
        listed = {path.relative_to(self.bundle.folder).as_posix(): entry for path, entry in self._files(onnx)}
        plan = PlanFile(
            name=graph,
            precision=variant.precision,
            path=variant.file,
            builder=variant.builder,
            inputs=described.inputs,
            outputs=described.outputs,
            sha256=self.bundle.files[relative].sha256,
            onnx=onnx.file if onnx is not None else None,
            hashes={name.rpartition("/")[2]: entry for name, entry in listed.items()},
        )
        return open_trt(plan, device=self._cuda, arena=self._arena, cache_folder=self.settings.cache)

    def _files(self, variant: Variant | None) -> list[tuple[Path, str]]:
        if variant is None:
            return []
        paths = (variant.file, *variant.data)
        return [(p, self.bundle.files[p.relative_to(self.bundle.folder).as_posix()].sha256) for p in paths]


def open_engine(bundle: Bundle, graph: str, settings: EngineSettings | None = None) -> tuple[Engine, Choice]:
    """Open one graph of a bundle by itself; several that work together belong into an :class:`EngineSet`.

    Returns
    -------
    The engine, and which backend was chosen and why.

    Raises
    ------
    MindDiffuserError
        The graph is not in the bundle, or no engine of it runs here.
    """
    # Alone, a plan owns its device and its scratch memory, and frees them with itself.
    engines = EngineSet(bundle, settings, shares=False)
    return engines[graph], engines.choice
