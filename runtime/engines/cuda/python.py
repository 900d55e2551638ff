"""GPU memory, stream and CUDA graphs through cuda-python, for machines without PyTorch."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..tensorrt.library import ALIGNMENT, TrtFailure
from .device import no_gpu, size_bytes
from .gpu import gpu_of_cuda_python

_INTERFACE = "__cuda_array_interface__"
_VERSION = 3


class CudaArray:
    """A contiguous array on the GPU, freed with its last reference; ``numpy.asarray`` copies it to the host.

    Other libraries (CuPy, numba, PyTorch) share it without a copy through ``__cuda_array_interface__``, which says
    them the stream to wait for. Keep it alive for as long as they read it.
    """

    def __init__(self, device: CudaPythonDevice, shape: Sequence[int], dtype: str, pointer: int, owner: Any) -> None:
        self.shape, self.dtype, self.pointer = tuple(shape), dtype, pointer
        self._device, self._owner = device, owner

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("an array on the GPU can only be copied to the host")
        return self._device.to_numpy(self).astype(dtype or self.dtype, copy=False)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": _numpy_dtype(self.dtype).str,
            "data": (self.pointer, False),
            "version": _VERSION,
            "stream": self._device.stream,
        }


class CudaPythonDevice:
    """See :class:`.device.Device`.

    The caller has no stream of its own, unless it hands over arrays of another library: those say which stream they
    are ready on. Freed memory is kept for the next array of the same size: nothing is given back to the driver while
    a graph is recorded, which the driver would refuse.
    """

    def __init__(self) -> None:
        from cuda.bindings import runtime as cudart

        self._cudart = cudart
        gpu = gpu_of_cuda_python()
        if gpu is None:
            raise no_gpu()
        self.gpu = gpu
        self.name = f"cuda:{gpu.index}"
        self._stream = self._call(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))
        self.stream = int(self._stream)
        self._free: dict[int, list[int]] = {}
        self._closed = False

    def allocate(self, shape: Sequence[int], dtype: str) -> CudaArray:
        _numpy_dtype(dtype)
        size = max(size_bytes(shape, dtype), ALIGNMENT)
        spare = self._free.setdefault(size, [])
        pointer = spare.pop() if spare else int(self._call(self._cudart.cudaMalloc(size)))
        array = CudaArray(self, shape, dtype, pointer, None)
        weakref.finalize(array, self._give_back, size, pointer).atexit = False
        return array

    def adopt(self, array: Any) -> CudaArray:
        if isinstance(array, CudaArray):
            given = array
            if array._device is not self:
                self._wait_for(array._device.stream)
        elif hasattr(array, _INTERFACE):
            given = self._foreign(array)
        else:
            host = np.ascontiguousarray(array)
            given = self.allocate(host.shape, host.dtype.name)
            self.copy(given, host)
            return given
        if given.pointer % ALIGNMENT == 0:
            return given
        moved = self.allocate(given.shape, given.dtype)
        self.copy(moved, given)
        return moved

    def pointer(self, array: Any) -> int:
        return int(array.pointer)

    def row(self, array: Any, index: int) -> CudaArray:
        shape = array.shape[1:]
        offset = (index % array.shape[0]) * size_bytes(shape, array.dtype)
        return CudaArray(self, shape, array.dtype, array.pointer + offset, array)

    def copy(self, target: Any, source: Any) -> None:
        size = size_bytes(target.shape, target.dtype)
        kinds = self._cudart.cudaMemcpyKind
        if isinstance(source, CudaArray):
            address, kind = source.pointer, kinds.cudaMemcpyDeviceToDevice
        else:
            source = np.ascontiguousarray(source, dtype=_numpy_dtype(target.dtype))
            address, kind = source.ctypes.data, kinds.cudaMemcpyHostToDevice
        if tuple(source.shape) != target.shape or str(source.dtype) != target.dtype:
            raise InputError(
                f"an array {source.dtype} {source.shape} cannot be copied into {target.dtype} {target.shape}"
            )
        # From pageable memory the call returns when the driver has taken the data: `source` may go then.
        self._call(self._cudart.cudaMemcpyAsync(target.pointer, address, size, kind, self._stream))

    def to_numpy(self, array: Any) -> NDArray[Any]:
        host = np.empty(array.shape, _numpy_dtype(array.dtype))
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._cudart.cudaMemcpyAsync(host.ctypes.data, array.pointer, host.nbytes, kind, self._stream))
        self.synchronise()
        return host

    def synchronise(self) -> None:
        self._call(self._cudart.cudaStreamSynchronize(self._stream))

    def enter(self) -> None:
        """Nothing to wait for: arrays of other libraries were waited for when they were adopted."""

    def leave(self) -> None:
        """Nothing to do: whoever takes an output learns from it which stream to wait for."""

    def record(self, work: Callable[[], None]) -> Any:
        cudart = self._cudart
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(cudart.cudaStreamBeginCapture(self._stream, mode))
        try:
            work()
        except BaseException:
            # The stream must leave the recording, whatever is left of it.
            error, graph = cudart.cudaStreamEndCapture(self._stream)
            if error == cudart.cudaError_t.cudaSuccess:
                cudart.cudaGraphDestroy(graph)
            raise
        graph = self._call(cudart.cudaStreamEndCapture(self._stream))
        try:
            executable = self._call(cudart.cudaGraphInstantiate(graph, 0))
        finally:
            self._call(cudart.cudaGraphDestroy(graph))
        return _Graph(cudart, executable)

    def launch(self, graph: Any) -> None:
        self._call(self._cudart.cudaGraphLaunch(graph.executable, self._stream))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.synchronise()
        for spare in self._free.values():
            while spare:
                self._call(self._cudart.cudaFree(spare.pop()))
        self._call(self._cudart.cudaStreamDestroy(self._stream))

    def _give_back(self, size: int, pointer: int) -> None:
        """An array has died, wherever the collector found it: no call to CUDA while a graph may be recorded."""
        if self._closed:
            self._cudart.cudaFree(pointer)
        else:
            self._free[size].append(pointer)

    def _foreign(self, array: Any) -> CudaArray:
        """Another library's array, shared; the stream waits until it is ready."""
        interface = getattr(array, _INTERFACE)
        dtype = np.dtype(interface["typestr"])
        if interface.get("strides") is not None and tuple(interface["strides"]) != _c_strides(
            interface["shape"], dtype
        ):
            raise InputError(f"an array of shape {tuple(interface['shape'])} is not contiguous: make a contiguous copy")
        ready = interface.get("stream")
        if ready is not None:
            self._wait_for(int(ready))
        return CudaArray(self, interface["shape"], dtype.name, int(interface["data"][0]), array)

    def _wait_for(self, stream: int) -> None:
        cudart = self._cudart
        event = self._call(cudart.cudaEventCreateWithFlags(cudart.cudaEventDisableTiming))
        try:
            self._call(cudart.cudaEventRecord(event, stream))
            self._call(cudart.cudaStreamWaitEvent(self._stream, event, 0))
        finally:
            self._call(cudart.cudaEventDestroy(event))

    def _call(self, result: tuple[Any, ...]) -> Any:
        """The value of a call that succeeded."""
        error, *values = result
        if error != self._cudart.cudaError_t.cudaSuccess:
            _, text = self._cudart.cudaGetErrorString(error)
            reason = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
            advice = ": use a smaller batch, or free memory of the GPU" if "memory" in reason else ""
            raise TrtFailure(f"CUDA on {self.name} failed: {reason}{advice}")
        return values[0] if values else None


class _Graph:
    """A graph that is ready to launch, destroyed with its last reference."""

    def __init__(self, cudart: Any, executable: Any) -> None:
        self.executable = executable
        weakref.finalize(self, cudart.cudaGraphExecDestroy, executable).atexit = False


def _numpy_dtype(dtype: str) -> np.dtype[Any]:
    if dtype == "bfloat16":
        raise InputError("numpy has no bfloat16, which this engine takes or gives: install PyTorch beside it")
    return np.dtype(dtype)


def _c_strides(shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, ...]:
    strides = [dtype.itemsize]
    for size in reversed(tuple(shape)[1:]):
        strides.insert(0, strides[0] * size)
    return tuple(strides[: len(shape)])
