"""A plan on the disk becomes an engine on the GPU: checked, mapped, its weights filled in, its contexts made."""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...bundle.graph_specs import Specs
from ...errors import FileError
from ...files import sha256_of, write_bytes
from ..cuda.gpu import Gpu
from ..trust import Trust
from .identity import check_plan, this_machine
from .library import LIBRARIES, TrtFailure, is_memory, load_library, messages_of, reason


@dataclass(frozen=True, kw_only=True)
class PlanFile:
    """A TensorRT plan and what is known about it, from a bundle's manifest.

    Attributes
    ----------
    name, precision : str
        Of the graph.
    builder : mapping
        The plan's identity, from :func:`~minddiffuser.export.tensorrt.plan.build_plan`.
    inputs, outputs : mapping of name to TensorSpec
    sha256 : str or None
        What the plan's bytes must be, if that is known.
    onnx : Path or None
        The graph that a stripped plan takes its weights from, with its data files beside it.
    hashes : mapping of file name to SHA-256
        Of `onnx` and its data files, if they were just verified: a plan of another graph is refused. What is missing
        is computed where weights are taken from it.
    trust : Trust
        Whose plans may run. A plan is code for the machine, whoever's manifest it stands in.
    """

    name: str
    precision: str
    path: Path
    builder: Mapping[str, Any]
    inputs: Specs
    outputs: Specs
    sha256: str | None = None
    onnx: Path | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    trust: Trust = field(default_factory=Trust)

    @property
    def target(self) -> str:
        return str(self.builder.get("target", ""))


class OpenPlan:
    """A deserialised plan: makes execution contexts.

    Parameters
    ----------
    gpu : Gpu
        The one that it will run on.
    cache_folder : Path or None
        Where TensorRT-RTX keeps the kernels that it compiles for this GPU between processes: a folder of the user's,
        never the bundle's, whose files are verified and must not change. None: they are compiled anew each time.

    Raises
    ------
    FileError
        The plan is missing, damaged, not trusted, or does not fit this machine; one sentence says why.
    TrtFailure
        TensorRT refuses it.
    """

    def __init__(self, plan: PlanFile, gpu: Gpu, cache_folder: Path | None = None) -> None:
        self.file = plan
        refuse_unfit(plan, this_machine(plan.target, gpu))
        self.trt = load_library(plan.target)
        self.messages = messages_of(self.trt)
        self.label = LIBRARIES[plan.target].label
        self.version = str(self.trt.__version__)
        self._runtime, self.engine = self._load()
        if self._option("refit") == "strip":
            self._refit()
        self._runtime_config, self._runtime_cache, self._cache_file = self._jit(cache_folder, gpu)

    def new_context(self) -> Any:
        """An execution context whose scratch memory the caller provides."""
        trt, engine = self.trt, self.engine
        self.messages.errors.clear()
        if self._runtime_config is not None:
            context = engine.create_execution_context(self._runtime_config)
        else:
            context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise self.failure("make ready to run")
        return context

    def failure(self, what: str) -> TrtFailure:
        """The error for a call that did not succeed: `what` follows "could not"."""
        cause = reason(self.messages)
        advice = ": use a smaller batch, or free memory of the GPU" if is_memory(cause) else ""
        return TrtFailure(f"{self.label} {self.version} could not {what} {self.file.name!r} ({cause}){advice}")

    def close(self) -> None:
        """Keep the kernels that were compiled for next time, and let the GPU's memory go."""
        runtime_cache, self._runtime_cache = self._runtime_cache, None
        if runtime_cache is not None and self._cache_file is not None:
            # What cannot be kept is compiled again: no reason to fail after the work is done.
            with suppress(OSError):
                write_bytes(self._cache_file, bytes(memoryview(runtime_cache.serialize())))
        self._runtime_config = self.engine = self._runtime = None

    def _option(self, name: str) -> Any:
        return self.file.builder["options"].get(name)

    def _load(self) -> tuple[Any, Any]:
        """Deserialise from a memory map, so that a plan of gigabytes is not held in memory twice."""
        path = self.file.path
        runtime = self.trt.Runtime(self.messages)
        self.messages.errors.clear()
        try:
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._check_trust(data)
                self._check_header(runtime, data)
                if self._option("version_compatible"):
                    runtime.engine_host_code_allowed = True  # nothing that was not trusted comes here
                engine = runtime.deserialize_cuda_engine(data)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            if isinstance(error, FileError):
                raise
            raise FileError(f"the plan {path} cannot be read ({error}): build it again") from error
        if engine is None:
            raise self.failure("load the plan of")
        return runtime, engine

    def _check_header(self, runtime: Any, data: mmap.mmap) -> None:
        """Ask TensorRT-RTX, which reads from the header alone whether a plan fits."""
        if not hasattr(runtime, "get_engine_validity"):
            return
        validity, diagnostics = runtime.get_engine_validity(data)
        if validity != self.trt.EngineValidity.INVALID:
            return
        found = [
            name.lower().replace("_", " ")
            for name, bit in self.trt.EngineInvalidityDiagnostics.__members__.items()
            if int(diagnostics) & int(bit)
        ]
        cause = ", ".join(found) or reason(self.messages)
        raise FileError(
            f"{self.label} {self.version} refuses the plan {self.file.path} ({cause}): "
            f"build it here with md-export build BUNDLE --target {self.file.target}"
        )

    def _check_trust(self, data: mmap.mmap) -> None:
        """Refuse bytes that are not the plan's, or that are not trusted, before the library reads any of them."""
        given, plan = hashlib.sha256(data).hexdigest(), self.file
        if plan.sha256 is not None and given != plan.sha256:
            raise FileError(
                f"the plan {plan.path} is not the file that its manifest names: get a whole copy of the bundle, or "
                f"build it here with md-export build BUNDLE --target {plan.target}"
            )
        if not plan.trust.allows([given]):
            raise FileError(
                f"the plan {plan.path} is code for this machine that was not built here and is not trusted: if you "
                "trust who made it, md-export trust BUNDLE"
            )

    def _refit(self) -> None:
        """Fill a stripped plan with the weights of its graph; any others would give undefined pictures."""
        onnx = self.file.onnx
        if onnx is None or not onnx.is_file():
            raise FileError(
                f"the plan {self.file.path} holds no weights, and its graph {onnx or '(none given)'} is not there: "
                "keep the bundle whole"
            )
        check_weights(self.file, onnx)
        trt, engine = self.trt, self.engine
        refitter = trt.Refitter(engine, self.messages)
        parser_refitter = trt.OnnxParserRefitter(refitter, self.messages)
        if not parser_refitter.refit_from_file(str(onnx)):
            errors = [parser_refitter.get_error(i).desc() for i in range(parser_refitter.num_errors)]
            self.messages.errors.clear()
            raise TrtFailure(
                f"{self.label} could not take the weights of {self.file.name!r} from {onnx} "
                f"({' '.join(errors[0].split()) if errors else 'it gave no reason'}): build the plan again"
            )
        missing = refitter.get_missing_weights()
        if missing:
            raise TrtFailure(
                f"the plan of {self.file.name!r} needs weights that {onnx} has not, such as {missing[0]!r}: "
                "build the plan again"
            )
        if not refitter.refit_cuda_engine():
            raise self.failure("fill in the weights of")

    def _jit(self, cache_folder: Path | None, gpu: Gpu) -> tuple[Any, Any, Path | None]:
        """How TensorRT-RTX compiles its kernels: (configuration, cache, cache's file); all None for TensorRT."""
        trt, engine = self.trt, self.engine
        if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            return None, None, None
        runtime_config = engine.create_runtime_config()
        runtime_config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        # A kernel swapped in later would be missing from a CUDA graph recorded before: compile all at once, and
        # leave the recording to us.
        runtime_config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        runtime_config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        if cache_folder is None:
            return runtime_config, None, None
        runtime_cache = runtime_config.create_runtime_cache()
        cache_file = cache_folder / cache_name(self.file, gpu, self.version)
        # Unreadable, of another driver or GPU: refused by the library, and written anew at the end.
        with suppress(OSError):
            runtime_cache.deserialize(cache_file.read_bytes())
        self.messages.errors.clear()
        if not runtime_config.set_runtime_cache(runtime_cache):
            raise self.failure("set the cache of")
        return runtime_config, runtime_cache, cache_file


def refuse_unfit(plan: PlanFile, here: Mapping[str, Any]) -> None:
    """Raise FileError with one sentence if a plan cannot run on the machine `here`."""
    graph = None if plan.onnx is None else plan.hashes.get(plan.onnx.name)
    fault = check_plan(plan.builder, here, graph_sha256=graph, data=_known_data(plan))
    if fault is not None:
        raise FileError(f"{plan.name!r} ({plan.path.name}): {fault}")


def _known_data(plan: PlanFile) -> dict[str, str] | None:
    """Hashes of the data files that the plan names, if all are known."""
    graph = plan.builder.get("graph")
    names = graph.get("data") if isinstance(graph, Mapping) else None
    if plan.onnx is None or not isinstance(names, Mapping) or not names.keys() <= plan.hashes.keys():
        return None
    return {name: plan.hashes[name] for name in names}


def check_weights(plan: PlanFile, onnx: Path) -> None:
    """Raise FileError unless the graph and its data files are those that the plan was built from."""
    graph = plan.builder["graph"]
    wanted = {onnx.name: graph["sha256"], **graph.get("data", {})}
    for name, sha256 in wanted.items():
        if Path(name).name != name:
            raise FileError(f"the plan {plan.path} names weights outside its folder ({name!r}): do not use this bundle")
        found = plan.hashes.get(name) or sha256_of(onnx.with_name(name))
        if found != sha256:
            raise FileError(
                f"{onnx.with_name(name)} is not what the stripped plan {plan.path} was built from: "
                "weights of another model would give meaningless pictures; build the plan again"
            )


def cache_name(plan: PlanFile, gpu: Gpu, version: str) -> str:
    """File name of the kernels compiled for one plan, GPU and release."""
    parts = (plan.name, plan.precision, str(plan.builder["graph"]["sha256"])[:16], gpu.name, version)
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts) + ".rtxcache"
