"""An ONNX file becomes a TensorRT plan: parsed, built, written whole or not at all, and described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...runtime.engines.cuda.gpu import Gpu, find_gpu
from ...runtime.engines.tensorrt.identity import AMPERE, this_machine
from ...runtime.engines.tensorrt.library import LIBRARIES, TrtFailure, is_memory, load_library, messages_of, reason
from ...runtime.errors import InputError
from ...runtime.files import replacing
from .cache import cache_file, load_cache, save_cache
from .network import add_profile, graph_hashes, parse_graph
from .progress import Report, Watch, interruptible, monitor_of
from .settings import CURRENT, TrtSettings


def build_plan(
    onnx_path: Path,
    plan_path: Path,
    settings: TrtSettings,
    *,
    progress: Report | None = None,
    cancelled: Callable[[], bool] | None = None,
    hashes: Mapping[str, str] | None = None,
    label: str | None = None,
) -> dict[str, Any]:
    """Build a plan from an ONNX file.

    Parameters
    ----------
    onnx_path : Path
        Its data files lie beside it.
    plan_path : Path
        Written under another name first; on any failure what was there stays.
    progress : callable or None
        ``progress(label, done, total)``, such as :class:`~minddiffuser.runtime.progress.Phases`.
    cancelled : callable or None
        Asked again and again whether to stop.
    hashes : mapping of file name to SHA-256, or None
        Of the graph and its data files, where they are known; the others are computed.
    label : str or None
        What progress and messages call the plan; None: the file's name.

    Returns
    -------
    dict
        The plan's identity, for a manifest's `builder` and
        :func:`~minddiffuser.runtime.engines.tensorrt.identity.check_plan`: "target", "library", "cuda", "gpu",
        "compute_capability" (None where the build used no GPU), "platform", "options", "graph" (hashes), "profile".

    Raises
    ------
    MissingExtra
        The library is not installed.
    InputError
        The parser refuses the graph; the settings do not fit it or this machine.
    FileError
        A file is missing, damaged or cannot be written.
    TrtFailure
        The builder gave up; the message has its reason.
    BuildCancelled, KeyboardInterrupt
        The build was stopped.
    """
    trt = load_library(settings.target)
    gpu = find_gpu()
    check_machine(settings, gpu)
    graph = graph_hashes(onnx_path, hashes or {})
    watch = Watch(f"building {label or plan_path.name}", progress, cancelled, target=settings.target)
    try:
        profile = _build(trt, onnx_path, plan_path, settings, gpu, watch)
    except MemoryError as error:
        raise _failure(onnx_path, "out of memory", settings, gpu) from error
    watch.complete()
    # A plan of TensorRT-RTX is not made for the GPU that happens to be here.
    used = gpu if settings.target == "tensorrt" or CURRENT in settings.compute_capabilities else None
    return {
        **this_machine(settings.target, gpu),
        "gpu": used.name if used else None,
        "compute_capability": used.compute_capability if used else None,
        "options": settings.options(),
        "graph": graph,
        "profile": profile,
    }


def _build(
    trt: Any, onnx_path: Path, plan_path: Path, settings: TrtSettings, gpu: Gpu | None, watch: Watch
) -> dict[str, Any]:
    """Write the plan and return its profile."""
    messages = messages_of(trt)
    builder = trt.Builder(messages)
    network, parser = parse_graph(trt, builder, onnx_path, LIBRARIES[settings.target].label)
    config = configure(trt, builder, settings)
    profile = add_profile(builder, config, network, settings.profile)
    config.progress_monitor = monitor_of(trt, watch)
    cache, cache_path = None, None
    if settings.timing_cache is not None and gpu is not None:
        cache_path = cache_file(settings.timing_cache, gpu, str(trt.__version__))
        cache = load_cache(config, cache_path)
    messages.errors.clear()  # of the parser
    with replacing(plan_path) as draft:
        with interruptible(watch):
            finished, disk_error = _write(trt, builder, network, config, draft)
        del parser  # it held the weights until here
        watch.check()
        if disk_error is not None:
            raise disk_error
        if not finished:
            raise _failure(onnx_path, reason(messages), settings, gpu)
    if cache is not None and cache_path is not None:
        save_cache(cache, cache_path)
    return profile


def check_machine(settings: TrtSettings, gpu: Gpu | None) -> None:
    """Refuse what this machine cannot build, in one sentence, before anything is read."""
    if settings.target == "tensorrt" and gpu is None:
        raise InputError(
            "target 'tensorrt' is built on the GPU that it is for, and none was found here (through cuda-python or "
            "PyTorch): build it there, or use target 'tensorrt-rtx'"
        )
    if CURRENT in settings.compute_capabilities and gpu is None:
        raise InputError(
            f"compute capability {CURRENT!r} asks for this machine's GPU, and none was found: name it, such as 8.9"
        )
    if settings.hardware_compatibility == "ampere_plus" and gpu is not None:
        major, minor = map(int, gpu.compute_capability.split("."))
        if (major, minor) < AMPERE:
            raise InputError(
                f"hardware compatibility 'ampere_plus' needs a GPU of compute capability 8.0 or later to build on, "
                f"{gpu.name} has {gpu.compute_capability}: use 'same_compute_capability'"
            )


def configure(trt: Any, builder: Any, settings: TrtSettings) -> Any:
    """A builder's configuration with these settings."""
    config = builder.create_builder_config()
    config.builder_optimization_level = settings.optimization_level
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if settings.max_aux_streams is not None:
        config.max_aux_streams = settings.max_aux_streams
    if not settings.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if settings.hardware_compatibility != "none":
        levels = trt.HardwareCompatibilityLevel.__members__
        name = settings.hardware_compatibility.upper()
        if name not in levels:
            raise InputError(
                f"hardware compatibility {settings.hardware_compatibility!r} is not known to TensorRT "
                f"{trt.__version__}: install 10.9 or later"
            )
        config.hardware_compatibility_level = levels[name]
    if settings.refit == "strip":
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
        # Not REFIT: this one keeps the speed, and release 11.3 computes wrong numbers with the other.
        config.set_flag(trt.BuilderFlag.REFIT_IDENTICAL)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # TensorRT-RTX: without it, runs cannot be recorded in a CUDA graph.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    _set_capabilities(trt, config, settings)
    return config


def _set_capabilities(trt: Any, config: Any, settings: TrtSettings) -> None:
    given = settings.compute_capabilities
    if not given:
        return
    known = trt.ComputeCapability.__members__
    names = [item.upper() if item == CURRENT else f"SM{item.replace('.', '')}" for item in given]
    for item, name in zip(given, names, strict=True):
        if name not in known:
            numbers = [key.removeprefix("SM") for key in known if key.startswith("SM")]
            raise InputError(
                f"compute capability {item} is not known to TensorRT-RTX {trt.__version__}: "
                f"choose among {', '.join(f'{number[:-1]}.{number[-1]}' for number in numbers)}"
            )
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        if not config.set_compute_capability(known[name], index):
            raise InputError(f"TensorRT-RTX refuses compute capability {given[index]}: leave it out")


def _write(trt: Any, builder: Any, network: Any, config: Any, draft: Path) -> tuple[bool, OSError | None]:
    """Build into a file: (whether the builder finished, what went wrong with the disk)."""
    with open(draft, "wb") as file:
        if not hasattr(builder, "build_serialized_network_to_stream"):  # TensorRT before 10.13
            memory = builder.build_serialized_network(network, config)
            if memory is not None:
                file.write(memoryview(memory))
            return memory is not None, None
        writer = _writer_of(trt, file)
        finished = builder.build_serialized_network_to_stream(network, config, writer)
        return bool(finished) and writer.size > 0, writer.error


def _writer_of(trt: Any, file: Any) -> Any:
    """A stream into a file: a plan of gigabytes is never whole in memory."""

    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)
            self.size = 0
            self.error: OSError | None = None

        def write(self, data: bytes) -> int:
            # TensorRT reports success whatever comes back from here: the error is kept.
            try:
                written = int(file.write(data)) if self.error is None else 0
            except OSError as error:
                self.error, written = error, 0
            self.size += written
            return written

    return Writer()


def _failure(onnx_path: Path, reason: str, settings: TrtSettings, gpu: Gpu | None) -> TrtFailure:
    label = LIBRARIES[settings.target].label
    if is_memory(reason):
        return TrtFailure(
            f"{label} ran out of memory while it built {onnx_path} ({reason}): close other programs, "
            "or build with a smaller batch, a lower optimization level or a smaller workspace"
        )
    if "workspace" in reason:
        return TrtFailure(f"{label} cannot build {onnx_path} ({reason}): give more workspace_bytes")
    if settings.refit == "strip" and gpu is None:
        return TrtFailure(
            f"{label} cannot build {onnx_path} without its weights on a machine without a GPU ({reason}): "
            "use refit 'none', or build on a machine with one"
        )
    return TrtFailure(f"{label} cannot build {onnx_path} ({reason}): try another optimization level or precision")
