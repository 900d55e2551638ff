"""GPU memory, stream and CUDA graphs through PyTorch: arrays are torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..tensorrt.library import ALIGNMENT
from .device import no_gpu, size_bytes
from .gpu import gpu_of_torch


class TorchDevice:
    """See :class:`.device.Device`.

    The caller's stream is PyTorch's current one. A tensor that is freed after a call may be freed at any time:
    `leave` has made the caller's stream, on which its memory is used next, wait for the engine.
    """

    def __init__(self) -> None:
        import torch

        gpu = gpu_of_torch()
        if gpu is None:
            raise no_gpu()
        self._torch: Any = torch
        self.gpu = gpu
        self.name = f"cuda:{gpu.index}"
        self._stream: Any = torch.cuda.Stream(device=gpu.index)  # type: ignore[no-untyped-call]
        self.stream = int(self._stream.cuda_stream)

    def allocate(self, shape: Sequence[int], dtype: str) -> Any:
        size_bytes(shape, dtype)  # refuses an unknown dtype in our words
        return self._torch.empty(tuple(shape), dtype=getattr(self._torch, dtype), device=self.name)

    def adopt(self, array: Any) -> Any:
        if isinstance(array, np.ndarray):
            return self._host(array).to(self.name)
        if not isinstance(array, self._torch.Tensor):
            # CuPy, numba, JAX: shared without a copy, and ordered on the caller's stream by the protocol.
            speaks = hasattr(array, "__dlpack__")
            array = self._torch.from_dlpack(array) if speaks else self._torch.as_tensor(array, device=self.name)
        if str(array.device) != self.name:
            raise InputError(
                f"a tensor is on {array.device}, the engine runs on {self.name}: move it with .to({self.name!r})"
            )
        tensor = array.detach().contiguous()
        return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor

    def pointer(self, array: Any) -> int:
        return int(array.data_ptr())

    def row(self, array: Any, index: int) -> Any:
        return array[index]

    def copy(self, target: Any, source: Any) -> None:
        if isinstance(source, np.ndarray):
            source = self._host(source)
        with self._torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)

    def to_numpy(self, array: Any) -> NDArray[Any]:
        self.synchronise()
        result: NDArray[Any] = array.detach().cpu().numpy()
        return result

    def synchronise(self) -> None:
        self._stream.synchronize()

    def enter(self) -> None:
        self._stream.wait_stream(self._torch.cuda.current_stream(self.gpu.index))

    def leave(self) -> None:
        self._torch.cuda.current_stream(self.gpu.index).wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Any:
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.stream(self._stream):
            # Other threads may allocate memory while this one records.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        return graph

    def launch(self, graph: Any) -> None:
        with self._torch.cuda.stream(self._stream):
            graph.replay()

    def close(self) -> None:
        self.synchronise()

    def _host(self, array: NDArray[Any]) -> Any:
        # PyTorch warns about an array that cannot be written to.
        return self._torch.from_numpy(np.require(array, requirements=["C", "W"]))
