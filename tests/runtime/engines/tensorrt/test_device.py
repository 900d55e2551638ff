"""GPU memory through cuda-python, on a CUDA runtime that is played in the host's memory, and through PyTorch."""

import contextlib
import ctypes
import gc
import inspect
import re
import sys
import types
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.engines.cuda import gpu as cuda_gpu
from minddiffuser.runtime.engines.cuda import open as cuda_open
from minddiffuser.runtime.engines.cuda import python as cuda_python
from minddiffuser.runtime.engines.cuda import torch as cuda_torch
from minddiffuser.runtime.engines.cuda.gpu import Gpu
from minddiffuser.runtime.engines.cuda.open import open_device
from minddiffuser.runtime.engines.cuda.python import CudaPythonDevice
from minddiffuser.runtime.engines.tensorrt.library import TrtFailure
from minddiffuser.runtime.errors import InputError, MissingExtra

GPU = Gpu(0, "NVIDIA A100-SXM4-80GB", "8.0", "13.0")
OK, FULL, BAD = 0, 2, 700
ALIGN = 256


KINDS = {"cudaMemcpyHostToDevice": "in", "cudaMemcpyDeviceToHost": "out", "cudaMemcpyDeviceToDevice": "across"}
VALUES = {
    "cudaStreamNonBlocking": 1,
    "cudaEventDisableTiming": 2,
    "cudaError_t": types.SimpleNamespace(cudaSuccess=OK),
    "cudaMemcpyKind": types.SimpleNamespace(**KINDS),
    "cudaStreamCaptureMode": types.SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread"),
}


class FakeCuda:
    """cuda.bindings.runtime over the host's memory; `log` holds the names of the calls."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.blocks: dict[int, Any] = {}
        self.room = 1 << 20

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)
        if name in VALUES:
            return VALUES[name]

        def call(*given: Any) -> tuple[Any, ...]:
            self.log.append((name, *given))
            value = {"cudaStreamCreateWithFlags": 99, "cudaStreamEndCapture": "graph", "cudaGraphInstantiate": "ready"}
            return (OK, value.get(name, "event" if name == "cudaEventCreateWithFlags" else None))

        return call

    def count(self, name: str) -> int:
        return sum(entry[0] == name for entry in self.log)

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        self.log.append(("cudaMalloc", size))
        if size > self.room:
            return FULL, 0
        block = ctypes.create_string_buffer(size + ALIGN)
        pointer = -(-ctypes.addressof(block) // ALIGN) * ALIGN
        self.blocks[pointer] = block
        return OK, pointer

    def cudaFree(self, pointer: int) -> tuple[int]:
        self.log.append(("cudaFree", pointer))
        del self.blocks[pointer]
        return (OK,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: str, stream: int) -> tuple[int]:
        assert stream == 99
        self.log.append(("cudaMemcpyAsync", kind))
        ctypes.memmove(target, source, size)
        return (OK,)

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:
        return OK, {FULL: b"out of memory", BAD: b"an illegal memory access"}[error]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr(cuda_python, "gpu_of_cuda_python", lambda: GPU)
    return fake


@pytest.fixture
def device(cuda: FakeCuda) -> CudaPythonDevice:
    return CudaPythonDevice()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "bool", "uint8"])
def test_arrays_go_there_and_back(device: CudaPythonDevice, rng: np.random.Generator, dtype: str) -> None:
    for shape in ((3, 5), (1,), (2, 3, 4)):
        host = rng.integers(0, 2, shape).astype(dtype)
        there = device.adopt(host)
        assert (there.shape, there.dtype, there.pointer % ALIGN) == (shape, dtype, 0)
        np.testing.assert_array_equal(device.to_numpy(there), host)
        np.testing.assert_array_equal(np.asarray(there), host)
        assert np.asarray(there).dtype == host.dtype


def test_rows_and_copies(device: CudaPythonDevice, rng: np.random.Generator) -> None:
    host = rng.standard_normal((4, 2, 64), dtype=np.float32)
    there = device.adopt(host)
    np.testing.assert_array_equal(device.to_numpy(device.row(there, 2)), host[2])
    np.testing.assert_array_equal(device.to_numpy(device.row(there, -1)), host[3])
    device.copy(device.row(there, 0), device.row(there, 3))
    device.copy(device.row(there, 1), np.ones((2, 64), np.float32))
    np.testing.assert_array_equal(device.to_numpy(there)[0], host[3])
    assert (device.to_numpy(there)[1] == 1).all()
    with pytest.raises(InputError, match="cannot be copied"):
        device.copy(there, host[0])
    with pytest.raises(ValueError, match="only be copied"):
        np.array(there, copy=False)


def test_memory_is_used_again_and_freed_at_the_end(device: CudaPythonDevice, cuda: FakeCuda) -> None:
    first = device.allocate((100,), "float32")
    pointer, row = first.pointer, device.row(first, 0)
    del first
    gc.collect()
    assert device.allocate((100,), "float32").pointer != pointer  # the row still holds it
    del row
    gc.collect()
    again = device.allocate((50, 2), "float32")
    assert again.pointer == pointer or cuda.count("cudaMalloc") == 2
    assert cuda.count("cudaFree") == 0
    device.close()
    device.close()
    assert list(cuda.blocks) == [again.pointer]
    del again
    gc.collect()
    assert cuda.blocks == {}
    assert cuda.count("cudaStreamDestroy") == 1


def test_another_librarys_array_is_shared_once_it_is_ready(device: CudaPythonDevice, cuda: FakeCuda) -> None:
    mine = device.adopt(np.arange(256, dtype=np.float32))

    def foreign(**message: Any) -> Any:
        return types.SimpleNamespace(__cuda_array_interface__={**mine.__cuda_array_interface__, **message})

    shared = device.adopt(foreign(stream=5))
    assert shared.pointer == mine.pointer
    assert ("cudaEventRecord", "event", 5) in cuda.log
    assert ("cudaStreamWaitEvent", 99, "event", 0) in cuda.log
    cuda.log.clear()
    assert device.adopt(foreign(stream=None, strides=(4,))).pointer == mine.pointer
    assert cuda.count("cudaEventRecord") == 0
    offset = foreign(data=(mine.pointer + 4, False), shape=(10,), stream=None)
    moved = device.adopt(offset)
    assert moved.pointer % ALIGN == 0
    np.testing.assert_array_equal(device.to_numpy(moved), np.arange(1, 11, dtype=np.float32))
    with pytest.raises(InputError, match="contiguous"):
        device.adopt(foreign(shape=(16, 8), strides=(64, 8)))


def test_an_array_of_another_stream_is_waited_for(device: CudaPythonDevice, cuda: FakeCuda) -> None:
    mine, other = device.adopt(np.arange(64, dtype=np.float32)), CudaPythonDevice()
    cuda.log.clear()
    assert device.adopt(mine) is mine
    assert cuda.count("cudaEventRecord") == 0
    assert other.adopt(mine) is mine
    assert ("cudaEventRecord", "event", device.stream) in cuda.log
    assert cuda.count("cudaStreamWaitEvent") == 1


def test_a_recording_is_ended_whatever_happens(device: CudaPythonDevice, cuda: FakeCuda) -> None:
    def fails() -> None:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        device.record(fails)
    names = [entry[0] for entry in cuda.log if "Capture" in entry[0] or "Graph" in entry[0]]
    assert names == ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphDestroy"]
    cuda.log.clear()
    graph = device.record(lambda: cuda.log.append(("work",)))
    device.launch(graph)
    del graph
    gc.collect()
    assert [entry[0] for entry in cuda.log] == [
        "cudaStreamBeginCapture",
        "work",
        "cudaStreamEndCapture",
        "cudaGraphInstantiate",
        "cudaGraphDestroy",
        "cudaGraphLaunch",
        "cudaGraphExecDestroy",
    ]


def test_errors_of_cuda_are_one_sentence(device: CudaPythonDevice, cuda: FakeCuda) -> None:
    with pytest.raises(TrtFailure, match="out of memory: use a smaller batch"):
        device.allocate((1 << 20,), "float32")
    cuda.cudaStreamSynchronize = lambda stream: (BAD,)
    with pytest.raises(TrtFailure, match="an illegal memory access"):
        device.synchronise()


def test_dtypes_that_numpy_has_not(device: CudaPythonDevice) -> None:
    with pytest.raises(InputError, match="bfloat16"):
        device.allocate((2,), "bfloat16")
    with pytest.raises(InputError, match="complex64"):
        device.allocate((2,), "complex64")


def test_without_a_gpu_opening_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_torch, "gpu_of_torch", lambda: None)
    monkeypatch.setattr(cuda_python, "gpu_of_cuda_python", lambda: None)
    for kind in ("torch", "cuda-python", None):
        with pytest.raises(InputError, match="no CUDA GPU"):
            open_device(kind)
    with pytest.raises(InputError, match="cuda-python, torch"):
        open_device("jax")
    monkeypatch.setattr(cuda_open, "_installed", lambda module: False)
    with pytest.raises(MissingExtra, match=r"minddiffuser\[torch\]"):
        open_device()


def test_the_calls_of_cuda_python_exist() -> None:
    cudart = pytest.importorskip("cuda.bindings.runtime")
    source = inspect.getsource(cuda_python) + inspect.getsource(cuda_gpu)
    names = set(re.findall(r"cudart\.(cuda\w+)", source))
    assert len(names) > 20
    assert [name for name in sorted(names) if not hasattr(cudart, name)] == []
    members = [(holder, name) for holder, name in re.findall(r"\b(cuda[A-Z]\w+)\.(cuda[A-Z]\w+)", source)]
    assert len(members) >= 3
    for holder, name in [*members, *(("cudaMemcpyKind", name) for name in KINDS)]:
        assert hasattr(getattr(cudart, holder), name)


class Quiet:
    """A stream that does nothing, for PyTorch without a GPU."""

    def synchronize(self) -> None:
        pass


def test_tensors_are_adopted_as_they_are_where_possible(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    device = object.__new__(cuda_torch.TorchDevice)
    device._torch, device.name, device.gpu, device._stream = torch, "cpu", GPU, Quiet()
    tensor = device.allocate((4, 64), "float16")
    assert (tensor.dtype, tensor.shape, tensor.is_contiguous()) == (torch.float16, (4, 64), True)
    room = torch.zeros(1024)
    offset = (-room.data_ptr() % ALIGN) // 4
    aligned = room[offset : offset + 128].view(2, 64)
    assert device.pointer(device.adopt(aligned)) == device.pointer(aligned)
    assert device.pointer(device.row(aligned, 1)) == device.pointer(aligned) + ALIGN
    shifted = room[offset + 1 : offset + 65]
    assert device.pointer(device.adopt(shifted)) != device.pointer(shifted)
    turned = device.adopt(aligned.T)
    assert turned.is_contiguous()
    host = rng.standard_normal((3, 2), dtype=np.float32)
    host.flags.writeable = False
    np.testing.assert_array_equal(device.to_numpy(device.adopt(host)), host)
    np.testing.assert_array_equal(device.to_numpy(device.adopt(_Exporter(torch.arange(3)))), [0, 1, 2])
    with pytest.raises(InputError, match="is on meta"):
        device.adopt(torch.zeros(2, device="meta"))
    with pytest.raises(InputError, match="complex64"):
        device.allocate((2,), "complex64")


class _Exporter:
    """An array of another library, which speaks DLPack."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack__(self, **message: Any) -> Any:
        return self._tensor.__dlpack__(**message)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


def test_torch_orders_its_streams_and_records(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    log: list[Any] = []

    class Stream:
        cuda_stream = 99

        def __init__(self, name: str = "own", device: Any = None) -> None:
            self.name = name

        def wait_stream(self, other: Any) -> None:
            log.append((self.name, "waits for", other.name))

        def synchronize(self) -> None:
            log.append("synchronize")

    class CUDAGraph:
        def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
            log.append(("begin", capture_error_mode))

        def capture_end(self) -> None:
            log.append("end")

        def replay(self) -> None:
            log.append("replay")

    @contextlib.contextmanager
    def stream(which: Any) -> Any:
        log.append(("on", which.name))
        yield

    callers = Stream("caller's")
    monkeypatch.setattr(cuda_torch, "gpu_of_torch", lambda: GPU)
    for name, value in {"Stream": Stream, "CUDAGraph": CUDAGraph, "stream": stream}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: callers)
    device = cuda_torch.TorchDevice()
    assert (device.name, device.stream) == ("cuda:0", 99)
    device.enter()
    device.leave()
    assert log == [("own", "waits for", "caller's"), ("caller's", "waits for", "own")]
    log.clear()
    device.launch(device.record(lambda: log.append("work")))
    assert log == [("on", "own"), ("begin", "thread_local"), "work", "end", ("on", "own"), "replay"]
    log.clear()
    with pytest.raises(ZeroDivisionError):
        device.record(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert log[-1] == "end"
    target = torch.zeros(3)
    device.copy(target, np.arange(3, dtype=np.float32))
    assert target.tolist() == [0, 1, 2]
    device.close()
    assert log[-1] == "synchronize"


def test_the_calls_of_torch_exist() -> None:
    torch = pytest.importorskip("torch")
    assert "capture_error_mode" in inspect.signature(torch.cuda.CUDAGraph.capture_begin).parameters
    assert all(hasattr(torch.cuda.CUDAGraph, name) for name in ("capture_end", "replay"))
    assert all(hasattr(torch.cuda.Stream, name) for name in ("wait_stream", "synchronize", "cuda_stream"))
    assert all(hasattr(torch.cuda, name) for name in ("current_stream", "stream", "get_device_properties"))
