"""TensorRT and a GPU for tests: the GPU's memory is a numpy array, and a plan is a guided step that can be computed.

The fake context reads and writes the addresses that it was given, and the fake CUDA graph keeps them as they were when
it was recorded: an engine that binds the wrong address, or replays on memory that has moved, gets other numbers.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minddiffuser.runtime.bundle.graph_specs import TensorSpec
from minddiffuser.runtime.engines.cuda.gpu import Gpu
from minddiffuser.runtime.engines.tensorrt.identity import this_machine
from minddiffuser.runtime.engines.tensorrt.plan import PlanFile
from minddiffuser.runtime.engines.trust import Trust

GPU = Gpu(0, "NVIDIA A100-SXM4-80GB", "8.0", "13.0")
BASE = 1 << 20
HEAP = 1 << 22
STREAM = 77
LATENT, CONTEXT = (4, 4, 4), (3, 5)
INPUTS = {
    "latent": TensorSpec("float32", ("batch", *LATENT)),
    "step": TensorSpec("float32", (3,)),
    "context": TensorSpec("float32", ("batch", *CONTEXT)),
    "uncond_context": TensorSpec("float32", CONTEXT),
    "guidance": TensorSpec("float32", (1,)),
}
OUTPUTS = {"next_latent": TensorSpec("float32", ("batch", *LATENT))}


def guided_step(values: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """A step in which every input counts: what the fake plan computes, and what tests compare with."""
    timestep, keep, noise = values["step"]
    cond = values["context"].mean((1, 2)) - values["uncond_context"].mean()
    found = np.sin(values["latent"] + timestep) + values["guidance"][0] * cond[:, None, None, None]
    result: NDArray[Any] = (keep * values["latent"] + noise * found).astype(np.float32)
    return result


class FakeArray:
    """An array on the fake GPU."""

    def __init__(self, device: FakeDevice, shape: Sequence[int], dtype: str, pointer: int) -> None:
        self.device, self.shape, self.dtype, self.pointer = device, tuple(shape), dtype, pointer

    @property
    def value(self) -> NDArray[Any]:
        return self.device.at(self.pointer, self.shape, self.dtype)


class FakeDevice:
    """See :class:`minddiffuser.runtime.engines.cuda.device.Device`; `log` holds every call that has an effect."""

    def __init__(self) -> None:
        self.gpu, self.name, self.stream = GPU, "cuda:0", STREAM
        self.heap = np.zeros(HEAP, np.uint8)
        self.used = 0
        self.log: list[tuple[Any, ...]] = []
        self.recording: list[Callable[[], None]] | None = None

    def at(self, pointer: int, shape: Sequence[int], dtype: str) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        start = pointer - BASE
        assert 0 <= start <= start + size <= HEAP
        return self.heap[start : start + size].view(dtype).reshape(shape)

    def allocate(self, shape: Sequence[int], dtype: str) -> FakeArray:
        assert self.recording is None, "memory is allocated while a graph is recorded"
        array = FakeArray(self, shape, dtype, BASE + self.used)
        self.used += -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // 256) * 256
        if dtype == "float32":
            array.value[...] = np.nan
        self.log.append(("allocate", array.shape))
        return array

    def adopt(self, array: Any) -> FakeArray:
        if isinstance(array, FakeArray):
            return array
        moved = self.allocate(array.shape, array.dtype.name)
        moved.value[...] = array
        return moved

    def pointer(self, array: Any) -> int:
        return int(array.pointer)

    def row(self, array: Any, index: int) -> FakeArray:
        step = int(np.prod(array.shape[1:])) * np.dtype(array.dtype).itemsize
        return FakeArray(self, array.shape[1:], array.dtype, array.pointer + index * step)

    def copy(self, target: Any, source: Any) -> None:
        value = source.value if isinstance(source, FakeArray) else source
        assert target.shape == value.shape
        assert self.recording is None
        target.value[...] = value
        self.log.append(("copy",))

    def to_numpy(self, array: Any) -> NDArray[Any]:
        self.synchronise()
        return np.array(array.value)

    def synchronise(self) -> None:
        assert self.recording is None, "waiting is not allowed while a graph is recorded"
        self.log.append(("synchronise",))

    def enter(self) -> None:
        self.log.append(("enter",))

    def leave(self) -> None:
        self.log.append(("leave",))

    def do(self, work: Callable[[], None]) -> None:
        """Do what was queued: at once, or when the graph is launched that is recorded."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def record(self, work: Callable[[], None]) -> Any:
        self.log.append(("record",))
        self.recording = []
        try:
            work()
            return self.recording
        finally:
            self.recording = None

    def launch(self, graph: Any) -> None:
        self.log.append(("launch", len(graph)))
        for work in graph:
            work()

    def close(self) -> None:
        self.log.append(("close",))

    def count(self, name: str) -> int:
        return sum(entry[0] == name for entry in self.log)

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [entry[1:] for entry in self.log if entry[0] == name]


class Fake:
    """A TensorRT to put in the place of the module: `module`. What a test changes is in the attributes.

    `fails` names calls that report failure.
    """

    def __init__(self, device: FakeDevice, *, rtx: bool = False) -> None:
        self.device, self.fails = device, set[str]()
        self.scratch_bytes = 1000
        self.dtypes = {"latent": "FLOAT"}
        self.host_tensors: set[str] = set()
        self.extra_tensors: list[str] = []
        self.diagnostics = 0
        self.missing_weights: list[str] = []
        self.cache_content = b"kernels"
        self.module: Any = types.ModuleType("tensorrt_rtx" if rtx else "tensorrt")
        self._fill(rtx)

    def log(self, *entry: Any) -> None:
        self.device.log.append(entry)

    def ok(self, name: str) -> bool:
        if name in self.fails:
            self.module.heard.log(
                1, f"IRuntime::x: Error Code 3: API Usage Error (no {name} today. In f at /_src/a.cpp:7)"
            )
            return False
        return True

    def _fill(self, rtx: bool) -> None:
        trt, fake = self.module, self

        class ILogger:
            Severity = types.SimpleNamespace(ERROR=1)

            def __init__(self) -> None:
                trt.heard = self

        trt.__version__ = "1.7.1.116" if rtx else "11.1.0.106"
        trt.ILogger = ILogger
        trt.TensorIOMode = types.SimpleNamespace(INPUT=1, OUTPUT=2)
        trt.ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED=2)
        trt.Runtime = lambda logger: FakeRuntime(fake, rtx)
        trt.Refitter = lambda engine, logger: FakeRefitter(fake)
        trt.OnnxParserRefitter = lambda refitter, logger: FakeOnnxRefitter(fake)
        if rtx:
            trt.EngineValidity = types.SimpleNamespace(INVALID=2)
            bits = {"VERSION_MISMATCH": 1, "UNSUPPORTED_CC": 2}
            trt.EngineInvalidityDiagnostics = types.SimpleNamespace(__members__=bits)
            trt.DynamicShapesKernelSpecializationStrategy = types.SimpleNamespace(EAGER="eager")
            trt.CudaGraphStrategy = types.SimpleNamespace(DISABLED="disabled")


class FakeRuntime:
    def __init__(self, fake: Fake, rtx: bool) -> None:
        self.fake, self.engine_host_code_allowed = fake, False
        if rtx:
            self.get_engine_validity = lambda data: (2 if fake.diagnostics else 0, fake.diagnostics)

    def deserialize_cuda_engine(self, data: Any) -> Any:
        self.fake.log("deserialize", bytes(data), self.engine_host_code_allowed)
        return FakeEngine(self.fake) if self.fake.ok("deserialize_cuda_engine") else None


class FakeEngine:
    def __init__(self, fake: Fake) -> None:
        self.fake = fake
        self.names = [*INPUTS, *OUTPUTS, *fake.extra_tensors]
        self.num_io_tensors = len(self.names)
        self.device_memory_size_v2 = fake.scratch_bytes

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> int:
        return 2 if name in OUTPUTS else 1

    def get_tensor_dtype(self, name: str) -> Any:
        return types.SimpleNamespace(name=self.fake.dtypes.get(name, "FLOAT"))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        spec = {**INPUTS, **OUTPUTS}.get(name, TensorSpec("float32", ()))
        return tuple(-1 if isinstance(size, str) else size for size in spec.shape)

    def is_shape_inference_io(self, name: str) -> bool:
        return name in self.fake.host_tensors

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        return [tuple(n if size == -1 else size for size in self.get_tensor_shape(name)) for n in (1, 2, 4)]

    def create_runtime_config(self) -> Any:
        return FakeRuntimeConfig(self.fake)

    def create_execution_context(self, how: Any) -> Any:
        self.fake.log("context", how)
        return FakeContext(self.fake) if self.fake.ok("create_execution_context") else None


class FakeContext:
    def __init__(self, fake: Fake) -> None:
        self.fake, self.shapes, self.addresses, self.scratch = fake, dict[str, Any](), dict[str, int](), (0, 0)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.fake.log("shape", name, shape)
        self.shapes[name] = shape
        return self.fake.ok("set_input_shape")

    def infer_shapes(self) -> list[str]:
        return [] if self.fake.ok("infer_shapes") else ["context"]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.shapes["latent"])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory % 256 == 0, "TensorRT wants 256-byte alignment"
        self.fake.log("address", name, memory)
        self.addresses[name] = memory
        return self.fake.ok("set_tensor_address")

    def set_device_memory(self, memory: int, size: int) -> None:
        self.fake.log("scratch", memory, size)
        self.scratch = (memory, size)

    def is_stream_capturable(self, stream: int) -> bool:
        return self.fake.ok("is_stream_capturable")

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == STREAM
        assert self.scratch[0] != 0
        assert self.scratch[1] >= self.fake.scratch_bytes
        self.fake.log("enqueue")
        at, shapes, device = dict(self.addresses), dict(self.shapes), self.fake.device

        def compute() -> None:
            values = {name: device.at(at[name], shapes[name], "float32") for name in INPUTS}
            device.at(at["next_latent"], shapes["latent"], "float32")[...] = guided_step(values)

        if self.fake.ok("execute_async_v3"):
            device.do(compute)
            return True
        return False


class FakeRuntimeConfig:
    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Any:
        return FakeRuntimeCache(self.fake)

    def set_runtime_cache(self, cache: Any) -> bool:
        return self.fake.ok("set_runtime_cache")


class FakeRuntimeCache:
    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def deserialize(self, blob: bytes) -> bool:
        self.fake.log("cache", blob)
        return True

    def serialize(self) -> bytes:
        return self.fake.cache_content


class FakeRefitter:
    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def get_missing_weights(self) -> list[str]:
        return self.fake.missing_weights

    def refit_cuda_engine(self) -> bool:
        return self.fake.ok("refit_cuda_engine")


class FakeOnnxRefitter:
    num_errors = 1

    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def get_error(self, index: int) -> Any:
        return types.SimpleNamespace(desc=lambda: f"problem {index}")

    def refit_from_file(self, model: str) -> bool:
        self.fake.log("refit", model)
        return self.fake.ok("refit_from_file")


TRUSTED = Trust(everything=True)


def plan_file(folder: Path, target: str = "tensorrt", *, trust: Trust = TRUSTED, **options: Any) -> PlanFile:
    """A plan for the fake GPU, its graph with one data file beside it."""
    contents = {"denoise.plan": b"plan", "denoise.onnx": b"graph", "weights.bin": b"weights"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    sha = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return PlanFile(
        name="denoise",
        precision="fp16",
        path=folder / "denoise.plan",
        builder={
            **this_machine(target, GPU),
            "options": options,
            "graph": {"sha256": sha["denoise.onnx"], "data": {"weights.bin": sha["weights.bin"]}},
        },
        inputs=INPUTS,
        outputs=OUTPUTS,
        sha256=sha["denoise.plan"],
        onnx=folder / "denoise.onnx",
        trust=trust,
    )


def feeds(rng: np.random.Generator, batch: int = 2) -> dict[str, NDArray[Any]]:
    shapes = {name: tuple(batch if size == "batch" else size for size in spec.shape) for name, spec in INPUTS.items()}
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
