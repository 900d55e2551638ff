"""The choice of the engine that runs a graph, by what the bundle holds and the machine has; the choice is reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..bundle.manifest import PRECISIONS, Variant, native_files
from ..bundle.open import Bundle
from ..closing import Closing
from ..errors import FileError, InputError, MindDiffuserError, check_choice
from ..files import sha256_of
from .base import Engine
from .contract import check_contract
from .here import (
    ABSENT,
    BACKENDS,
    PROVIDER_OF,
    Machine,
    backend_of,
    pick,
    profile_of,
    runs_on,
    source_of,
    why_no_provider,
    why_not_backend,
)
from .ort.engine import OrtSettings, SessionSettings, open_ort
from .trust import Trust


@dataclass(frozen=True, kw_only=True)
class EngineSettings(SessionSettings):
    """What to run a bundle on; see :class:`~minddiffuser.runtime.engines.ort.engine.SessionSettings` too.

    Attributes
    ----------
    backend : str
        "auto", or a name of `BACKENDS`.
    precision : str
        "auto" takes the narrowest that the bundle holds on a GPU, and float32 on a CPU where there is one.
    cache : Path or None
        Where TensorRT-RTX keeps what it compiles for this GPU.
    trust : Trust
        Which plans may run; see :mod:`.trust`.

    Raises
    ------
    InputError
        An unknown name, a number outside its range, or trust in everything without a backend asked for by name.
    """

    backend: str = "auto"
    precision: str = "auto"
    cache: Path | None = None
    trust: Trust = field(default_factory=Trust)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("backend", self.backend, ("auto", *BACKENDS))
        check_choice("precision", self.precision, ("auto", *PRECISIONS))
        if self.trust.everything and self.backend == "auto":
            raise InputError(
                "--trust-plans runs code that the bundle brings, and needs an explicit backend: give --backend, or "
                "leave it out"
            )

    def ort(self, provider: str) -> OrtSettings:
        """The same for a session of ONNX Runtime."""
        return OrtSettings(provider=provider, **{f.name: getattr(self, f.name) for f in fields(SessionSettings)})


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A backend, and why it was taken."""

    backend: str
    reason: str


def choose_backend(
    bundle: Bundle,
    wanted: str,
    machine: Machine | None = None,
    *,
    precision: str = "auto",
    graphs: Collection[str] | None = None,
    failed: Mapping[str, str] | None = None,
) -> Choice:
    """Choose the backend of a bundle's networks.

    Parameters
    ----------
    wanted
        "auto", or a name of `BACKENDS`: then that one, or an error.
    machine
        Where it is to run; None: here, with nothing trusted.
    precision
        Of the engines, or "auto".
    graphs
        What is to run; None: everything that the bundle holds.
    failed
        For "auto": backends that did not start, and why.

    Raises
    ------
    InputError
        The bundle holds no engine for the wanted backend, or it does not run on this machine.
    """
    there, refused = machine or Machine(), dict(failed or {})

    def why_not(backend: str) -> str | None:
        return why_not_backend(bundle, backend, there, precision=precision, graphs=graphs)

    if wanted != "auto":
        _refuse(bundle, wanted, why_not(wanted))
        return Choice(backend=wanted, reason="as requested")
    for backend in BACKENDS:
        reason = refused.get(backend) or why_not(backend)
        if reason is None:
            because = "".join(f"; {reason}" for reason in _reasons(refused))
            return Choice(backend=backend, reason=f"the fastest that runs here{because}")
        refused[backend] = reason
    reasons = "; ".join(_reasons(refused))
    cure = "build one for this machine" if why_no_provider("ort") is None else "pip install 'minddiffuser[edge]'"
    raise InputError(f"no engine of the bundle {bundle.folder} runs here ({reasons}): {cure}")


def _reasons(refused: Mapping[str, str]) -> list[str]:
    """Why backends were not taken, except those for which the bundle holds no engine."""
    return [f"{name}: {refused[name]}" for name in BACKENDS if refused.get(name, ABSENT) != ABSENT]


def _refuse_cache_inside(bundle: Bundle, cache: Path | None) -> None:
    if cache is not None and cache.resolve().is_relative_to(bundle.folder):
        raise InputError(
            f"the engine cache {cache} lies inside the bundle {bundle.folder}, whose files are verified and stay as "
            "they are: give a folder of your own"
        )


def _refuse(bundle: Bundle, wanted: str, reason: str | None) -> None:
    """Refuse a backend that was requested by name."""
    if reason is None:
        return
    held = {variant.target for variant in bundle.variants}
    target = BACKENDS[wanted]
    if target not in held:
        raise InputError(
            f"the bundle {bundle.folder} holds engines for {', '.join(sorted(held))}, the backend {wanted!r} needs "
            f"{target}: md-export build {bundle.folder.name} --target {target}"
        )
    raise InputError(f"the backend {wanted!r} does not run here: {reason}")


class EngineSet(Closing):
    """The engines of a bundle, opened at their first use, on one device with shared threads and scratch memory.

    Parameters
    ----------
    graphs : collection of str or None
        What will be used, which the backend must run; None: everything that the bundle holds.

    Raises
    ------
    InputError
        See :func:`choose_backend`.
    FileError
        The bundle lacks one of the graphs.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: EngineSettings | None = None,
        *,
        graphs: Collection[str] | None = None,
    ) -> None:
        self.bundle, self.settings = bundle, settings or EngineSettings()
        self.graphs = tuple(bundle.graphs if graphs is None else graphs)
        bundle.require(*self.graphs)
        _refuse_cache_inside(bundle, self.settings.cache)
        self._machine = Machine(self.settings.trust)
        self._failed: dict[str, str] = {}
        self.choice = self._choose()
        self._open: dict[str, Engine] = {}
        self._in_use = False
        self._stack = ExitStack()
        self._cuda: Any = None
        self._arena: Any = None
        self._loop: Any = None

    def __getitem__(self, graph: str) -> Engine:
        """The engine of a graph.

        Raises
        ------
        MindDiffuserError
            It is not in the bundle, or cannot run here.
        """
        if graph not in self._open:
            self.bundle.require(graph)
            self._start([graph])
        self._in_use = True
        return self._open[graph]

    def start(self) -> None:
        """Open all of `graphs`: what does not run here is said before anything is computed.

        With the backend "auto", one that is there and does not start is passed over for the next.

        Raises
        ------
        MindDiffuserError
            An engine does not open, and no other backend runs here.
        """
        self._start(self.graphs)

    def _start(self, graphs: Collection[str]) -> None:
        while True:
            try:
                for graph in graphs:
                    if graph not in self._open:
                        self._open[graph] = self.open(
                            self.variant(graph), backend_of(self.bundle, graph, self.choice.backend)
                        )
                return
            except (MindDiffuserError, MemoryError) as error:
                self._pass_over(error)

    def _pass_over(self, error: Exception) -> None:
        """Go on with the next backend that runs here; raises `error` where the choice is not ours any more."""
        if self.settings.backend != "auto" or self._in_use:
            raise error
        reason = " ".join(str(error).split()) or type(error).__name__
        self._failed[self.choice.backend] = f"it does not start ({reason})"
        try:
            choice = self._choose()
        except InputError:
            raise error from None
        self.close()
        self._cuda = self._arena = self._loop = None
        self.choice = choice

    def _choose(self) -> Choice:
        return choose_backend(
            self.bundle,
            self.settings.backend,
            self._machine,
            precision=self.settings.precision,
            graphs=self.graphs,
            failed=self._failed,
        )

    def variant(self, graph: str) -> Variant:
        """The file that a graph runs from."""
        self.bundle.require(graph)
        picked = pick(self.bundle, graph, self.choice.backend, self.settings.precision, self._machine)
        if isinstance(picked, str):
            raise InputError(picked)
        return picked

    @property
    def content_hash(self) -> str:
        """SHA-256 of what is taken from the bundle: the engines of `graphs` with their data, and the arrays."""
        used = [self.variant(graph) for graph in self.graphs]
        paths = {path.relative_to(self.bundle.folder).as_posix() for v in used for path in (v.file, *v.data)}
        native = {name for v in used for name in native_files(v, self.bundle.folder, self.bundle.files)}
        return self.bundle.content_hash(paths | native)

    @property
    def largest_batch(self) -> int | None:
        """The most trials that every engine takes at once; None: any number."""
        target = BACKENDS[self.choice.backend]
        known = [name for name in self.graphs if runs_on(self.bundle.graphs[name], target)]
        limits = [self.variant(name).batch_sizes for name in known]
        most = [max(sizes) for sizes in limits if sizes]
        return min(most) if most else None

    def loop(self) -> Callable[..., Any] | None:
        """All denoising steps as one recorded CUDA graph, where the backend is TensorRT; None elsewhere."""
        from .tensorrt.engine import TrtEngine

        denoise = self["denoise"]
        if not isinstance(denoise, TrtEngine):
            return None
        if self._loop is None:
            from .tensorrt.denoise_loop import DenoiseLoop

            self._loop = DenoiseLoop(denoise)
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

    def open(self, variant: Variant, backend: str | None = None) -> Engine:
        """Open one given engine, whatever the settings would choose (for verification); closed with the set."""
        return self._stack.enter_context(self._engine(variant, backend or self.choice.backend))

    def _engine(self, variant: Variant, backend: str) -> Engine:
        check_contract(self.bundle, variant.graph)
        graph = variant.graph
        described = self.bundle.graphs[graph]
        if not backend.startswith("ort"):
            return self._plan(graph, variant)
        settings = self.settings.ort(PROVIDER_OF[backend])
        with ExitStack() as stack:
            if backend == "ort-tensorrt":
                cache = Path(stack.enter_context(TemporaryDirectory(prefix="minddiffuser-")))
                settings = replace(settings, cache=self._copied(variant, cache), profile=profile_of(variant))
            specs = described.inputs, described.outputs
            engine = open_ort(graph, variant.file, *specs, settings, precision=variant.precision)
            engine.own(stack.pop_all())  # the cache is used as long as the engine is, whoever holds it
        return engine

    def _copied(self, variant: Variant, folder: Path) -> Path:
        """Copy the engines that the bundle has for a graph: only verified files, and the bundle stays as it is."""
        for name in native_files(variant, self.bundle.folder, self.bundle.files):
            copy = folder / name.rpartition("/")[2]
            shutil.copyfile(self.bundle.path(name), copy)
            if not self.settings.trust.allows([sha256_of(copy)]):  # the very bytes that are about to run
                raise FileError(f"{self.bundle.path(name)} was changed since it was checked, and is not trusted")
        return folder

    def _plan(self, graph: str, variant: Variant) -> Engine:
        if self.settings.memory_limit_bytes is not None:
            raise InputError(
                "memory_limit_bytes is for ONNX Runtime: a plan's memory was fixed when it was built (md-export build "
                "--workspace), leave it out"
            )
        from .cuda.open import open_device
        from .tensorrt.arena import Arena
        from .tensorrt.engine import open_trt
        from .tensorrt.plan import PlanFile

        if self._cuda is None:
            self._cuda = open_device()
            self._stack.callback(self._cuda.close)
            self._arena = Arena(self._cuda)
            self._stack.callback(self._arena.release)
        described = self.bundle.graphs[graph]
        onnx = source_of(self.bundle, variant)
        files = () if onnx is None else (onnx.file, *onnx.data)
        plan = PlanFile(
            name=graph,
            precision=variant.precision,
            path=variant.file,
            builder=variant.builder,
            inputs=described.inputs,
            outputs=described.outputs,
            sha256=self._sha256(variant.file),
            onnx=onnx.file if onnx is not None else None,
            hashes={path.name: self._sha256(path) for path in files},
            trust=self.settings.trust,
        )
        return open_trt(plan, device=self._cuda, arena=self._arena, cache_folder=self.settings.cache)

    def _sha256(self, path: Path) -> str:
        return self.bundle.files[path.relative_to(self.bundle.folder).as_posix()].sha256
