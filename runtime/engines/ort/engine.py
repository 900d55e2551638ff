"""The engine over ONNX Runtime: CPU, CUDA, or its TensorRT provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...bundle.graph_specs import Specs, TensorSpec
from ...closing import Closing
from ...command import is_out_of_memory
from ...errors import FileError, InputError, MissingExtra, check_choice
from ..base import check_feeds
from .array import DTYPES, OrtArray
from .threads import uses_pool

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
MEMORY = ("fast", "low")


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """How sessions run, whatever runs them.

    Attributes
    ----------
    threads : int or None
        CPU threads of each session; None: one per physical core.
    share_threads : bool
        One pool of threads for all sessions of the process. For a program of one's own: no other session in the
        process can have its own threads afterwards.
    memory : str
        "fast" lets kernels keep weights in their own layout beside the stored ones, and keeps freed memory for the
        next run. "low", on the CPU, does neither: weights of all sessions are the mapped file, none is transposed or
        fused into another when a graph is opened, and a run gives back what it took.
    memory_limit_bytes : int or None
        Of the GPU's memory, for each session; ONNX Runtime only.

    Raises
    ------
    InputError
        A value outside its range.
    """

    threads: int | None = None
    share_threads: bool = False
    memory: str = "fast"
    memory_limit_bytes: int | None = None

    def __post_init__(self) -> None:
        check_choice("memory", self.memory, MEMORY)
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}: give 1 or more, or leave it out")
        if self.memory_limit_bytes is not None and self.memory_limit_bytes < 1:
            raise InputError(f"memory_limit_bytes is {self.memory_limit_bytes}: give a positive number of bytes")


@dataclass(frozen=True, kw_only=True)
class OrtSettings(SessionSettings):
    """How sessions of ONNX Runtime run; see :class:`SessionSettings` too.

    Attributes
    ----------
    provider : str
        "cpu", "cuda" or "tensorrt": the one that is used, never only the one that is asked for first.
    cache : Path or None
        Folder of the TensorRT provider's engines, of one graph in one precision.
    profile : (int, int, int) or None
        The smallest, usual and largest batch that the TensorRT provider builds an engine for, and finds again in the
        cache. None builds one for the first batch, and another one for every batch that it does not cover.
    """

    provider: str = "cpu"
    cache: Path | None = None
    profile: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("provider", self.provider, PROVIDERS)
        if self.profile is not None and not 1 <= self.profile[0] <= self.profile[1] <= self.profile[2]:
            raise InputError(f"the profile is {self.profile}: give (min, opt, max) from 1 in rising order")


def open_ort(
    name: str,
    path: Path,
    inputs: Specs,
    outputs: Specs,
    settings: OrtSettings | None = None,
    *,
    precision: str = "fp32",
) -> OrtEngine:
    """Open an ONNX graph.

    Parameters
    ----------
    name
        Of the graph, for messages.
    path
        The .onnx file; its external data lie beside it.
    inputs, outputs
        What the graph is said to take and give.
    settings
        None takes the defaults.

    Raises
    ------
    MissingExtra
        onnxruntime is not installed, or is a build without the provider.
    FileError
        The file is no graph that ONNX Runtime opens, or takes and gives something else.
    InputError
        The provider is there and does not start, for want of a GPU or its libraries.
    """
    settings = settings or OrtSettings()
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtra("running a bundle needs onnxruntime: pip install 'minddiffuser[edge]'") from error
    wanted = PROVIDERS[settings.provider]
    available = onnxruntime.get_available_providers()
    if wanted not in available:
        raise MissingExtra(
            f"this onnxruntime has no {wanted} (it has {', '.join(available)}): pip install 'minddiffuser[gpu]' in an "
            "environment without the plain onnxruntime, or choose the backend ort"
        )
    lacking = "" if settings.provider == "cpu" else _load_cuda(onnxruntime)
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            sess_options=_options(onnxruntime, settings, half=precision in ("fp16", "bf16")),
            providers=_providers(settings, inputs, f"{name}.{precision}", exact=precision == "fp32"),
            disabled_optimizers=["ConstantFolding"] if _is_low(settings) else None,
        )
    except Exception as error:  # a dozen types of its own
        if is_out_of_memory(error):
            raise MemoryError(f"ONNX Runtime had no memory left to open {name}") from error
        half = precision in ("fp16", "bf16") and settings.provider == "cpu"
        advice = f"a CPU has few kernels for {precision}, choose fp32" if half else "export the bundle again"
        raise FileError(f"ONNX Runtime cannot open the graph {name} ({path}): {_reason(error)}; {advice}") from error
    used = session.get_providers()
    if used[0] != wanted:
        raise InputError(
            f"the graph {name} was asked to run on {wanted} and ONNX Runtime fell back to {used[0]}: check that the "
            f"GPU's driver and CUDA libraries are installed, or choose the backend ort{lacking}"
        )
    _check_interface(session, name, path, inputs, outputs)
    if settings.provider != "cpu":
        _refuse_fall_back(session, name)
    return OrtEngine(session, name, inputs, outputs, settings, precision)


class OrtEngine(Closing):
    """A session that is ready to run; see :class:`..base.Engine`. Made by :func:`open_ort`.

    On the CPU arrays are numpy's. On a GPU outputs are :class:`~.array.OrtArray`, which stay there; inputs may be
    those, torch CUDA tensors, or numpy arrays, which are copied.
    """

    def __init__(
        self, session: Any, name: str, inputs: Specs, outputs: Specs, settings: OrtSettings, precision: str
    ) -> None:
        self._session: Any = session
        self.name = name
        self.inputs: Specs = dict(inputs)
        self.outputs: Specs = dict(outputs)
        self._settings, self._precision = settings, precision
        self._names = list(outputs)
        self._owned = ExitStack()

    def own(self, resources: ExitStack) -> None:
        """Take over what the session works on, to be closed after it."""
        self._owned = resources

    @property
    def device(self) -> str:
        return "cpu" if self._settings.provider == "cpu" else "cuda:0"

    @property
    def description(self) -> str:
        return f"ONNX Runtime, {self._open().get_providers()[0]}, {self._precision}"

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """See :meth:`..base.Engine.run`."""
        check_feeds(self.name, self.inputs, feeds)
        session = self._open()
        if self._settings.provider != "cpu":
            return self._run_bound(session, feeds)
        solid = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        return dict(zip(self._names, self._guarded(session.run, self._names, solid), strict=True))

    def close(self) -> None:
        """Free the session. Twice is once."""
        self._session = None
        self._owned.close()

    def _open(self) -> Any:
        if self._session is None:
            raise InputError(f"the engine {self.name!r} is closed: open it again")
        return self._session

    def place(self, array: Any) -> Any:
        """See :meth:`..base.Engine.place`."""
        if self._settings.provider == "cpu":
            return np.ascontiguousarray(array)
        if hasattr(array, "detach"):
            array = array.detach().contiguous()
            if array.device.type != "cpu":
                return array
            array = array.numpy()
        kind, number = self.device.split(":")
        return OrtArray.adopt(array, kind, int(number))

    def _guarded(self, run: Callable[..., Any], *arguments: Any) -> Any:
        """Run; what ONNX Runtime raises becomes one sentence, or a MemoryError."""
        try:
            return run(*arguments)
        except Exception as error:  # a dozen types of its own, of which Exception is the only common base
            if is_out_of_memory(error):
                raise MemoryError(f"ONNX Runtime had no memory left for {self.name}") from error
            raise FileError(
                f"ONNX Runtime cannot run the graph {self.name}: {_reason(error)}; export the bundle again"
            ) from error

    def _run_bound(self, session: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run with inputs and outputs on the GPU."""
        kind, number = self.device.split(":")
        binding = session.io_binding()
        kept = [OrtArray.adopt(array, kind, int(number)) for array in feeds.values()]
        for name, array in zip(feeds, kept, strict=True):
            array.bind(binding, name)
        for name in self._names:
            binding.bind_output(name, kind, int(number))
        self._guarded(session.run_with_iobinding, binding)
        return {n: OrtArray(v) for n, v in zip(self._names, binding.get_outputs(), strict=True)}


_loading, _lacking = Lock(), list[str]()


def _load_cuda(onnxruntime: Any) -> str:
    """Let CUDA's libraries be found where pip has put them, once in a process; what is missing, for a message."""
    with _loading:
        if not _lacking:
            # Or it warns of every kernel that it passes over for another one.
            onnxruntime.set_default_logger_severity(4)
            said = StringIO()
            with redirect_stdout(said):  # it reports there, where results go
                onnxruntime.preload_dlls()
            failed = [line.strip() for line in said.getvalue().splitlines() if "ailed to load" in line]
            _lacking.append(f" ({'; '.join(failed)[:300]})" if failed else "")
        return _lacking[0]


def _options(onnxruntime: Any, settings: OrtSettings, *, half: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what matters is raised
    if _is_low(settings) or (half and settings.provider == "cpu"):
        # The level above rearranges layouts: weights are copied, and some float16 graphs end the process (CLIP's,
        # onnxruntime 1.32).
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    if uses_pool(onnxruntime, settings.threads, share=settings.share_threads):
        options.use_per_session_threads = False
    else:
        options.intra_op_num_threads = settings.threads or 0
        # Idle threads of one session would spin on the cores that the next one needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if settings.provider != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if _is_low(settings):
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def _is_low(settings: OrtSettings) -> bool:
    return settings.memory == "low" and settings.provider == "cpu"


# Where these run on the CPU inside a session for the GPU, that is a fall-back and no shape arithmetic.
_HEAVY = {"Conv", "ConvTranspose", "MatMul", "Gemm", "FusedMatMul", "FusedConv", "Softmax", "InstanceNormalization"}


def _refuse_fall_back(session: Any, name: str) -> None:
    given = session.get_provider_graph_assignment_info()
    heavy = [
        node.op_type
        for part in given
        if part.ep_name == PROVIDERS["cpu"]
        for node in part.get_nodes()
        if node.op_type in _HEAVY
    ]
    if heavy:
        kinds = ", ".join(sorted(set(heavy)))
        raise InputError(
            f"ONNX Runtime gave {len(heavy)} operators of the graph {name} to the CPU ({kinds}): "
            "choose another backend or precision"
        )


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _providers(settings: OrtSettings, inputs: Specs, prefix: str, *, exact: bool) -> list[tuple[str, dict[str, str]]]:
    if settings.provider == "cpu":
        return [(PROVIDERS["cpu"], {})]
    # In float32, products are not rounded to TF32, so that errors are those that the bundle was verified with. The
    # option takes the tensor cores from convolutions in 16 bits, too.
    cuda = {"device_id": "0", "use_tf32": "0" if exact else "1"}
    if settings.memory_limit_bytes is not None:
        cuda["gpu_mem_limit"] = str(settings.memory_limit_bytes)
    if settings.provider == "cuda":
        return [(PROVIDERS["cuda"], cuda)]
    options = {"device_id": "0", "trt_fp16_enable": "0"}  # precision lives in the graph
    if settings.cache is not None:
        # The provider names its files by inputs and outputs, which are the same in every precision.
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(settings.cache)}
        options["trt_engine_cache_prefix"] = prefix
    if settings.profile is not None:
        names = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")
        options |= {name: _shapes(inputs, batch) for name, batch in zip(names, settings.profile, strict=True)}
    if settings.memory_limit_bytes is not None:
        options["trt_max_workspace_size"] = str(settings.memory_limit_bytes)
    return [(PROVIDERS["tensorrt"], options), (PROVIDERS["cuda"], cuda)]


def _shapes(inputs: Specs, batch: int) -> str:
    """The inputs that have a free size, as the provider wants them: "latent:2x4x64x64,context:2x15x768"."""
    free = {name: spec.shape for name, spec in inputs.items() if any(isinstance(size, str) for size in spec.shape)}
    return ",".join(
        f"{name}:{'x'.join(str(batch if isinstance(size, str) else size) for size in shape)}"
        for name, shape in free.items()
    )


def _check_interface(session: Any, name: str, path: Path, inputs: Specs, outputs: Specs) -> None:
    for stated, found, what in ((inputs, session.get_inputs(), "inputs"), (outputs, session.get_outputs(), "outputs")):
        given = {value.name: _spec(value) for value in found}
        if given.keys() != stated.keys() or not all(_fits(given[key], spec) for key, spec in stated.items()):
            raise FileError(
                f"the graph {name} ({path}) has the {what} {_listed(given)}, its description says {_listed(stated)}: "
                "export the bundle again"
            )


def _spec(value: Any) -> TensorSpec:
    dtype = DTYPES.get(value.type, value.type)
    return TensorSpec(dtype, tuple(size if isinstance(size, int) else str(size) for size in value.shape))


def _fits(given: TensorSpec, spec: TensorSpec) -> bool:
    """Whether a graph's tensor can be what a description says: a name on either side is a free size."""
    return (given.dtype, len(given.shape)) == (spec.dtype, len(spec.shape)) and all(
        isinstance(size, str) or isinstance(wanted, str) or size == wanted
        for size, wanted in zip(given.shape, spec.shape, strict=True)
    )


def _listed(specs: Specs) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in specs.items())


def as_numpy(array: Any) -> NDArray[Any]:
    """An engine's output on the host: numpy, torch, or anything with `numpy()` or ``__array__``."""
    if isinstance(array, np.ndarray):
        return array
    if hasattr(array, "detach"):
        return np.asarray(array.detach().cpu())
    return np.asarray(array.numpy() if hasattr(array, "numpy") else array)
