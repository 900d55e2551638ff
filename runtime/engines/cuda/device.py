"""What an engine needs from a GPU: memory, copies, a stream of its own, and recording of CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...bundle.manifest import DTYPES
from ...errors import InputError, check_choice
from .gpu import Gpu

# Bytes of one number, for every dtype that an input or output may have.
ITEM_BYTES = {name: 2 if name == "bfloat16" else np.dtype(name).itemsize for name in DTYPES}


class Device(Protocol):
    """The process's current GPU with a stream of its own: everything queued here runs in the order of the calls.

    One process uses one GPU: choose it with CUDA_VISIBLE_DEVICES. The stream is never the default one. Nothing here
    waits for the GPU except `to_numpy`, `synchronise` and `close`.

    Attributes
    ----------
    name : str
        "cuda:0", …
    stream : int
        Handle of the stream (cudaStream_t).
    """

    gpu: Gpu
    name: str
    stream: int

    def allocate(self, shape: Sequence[int], dtype: str) -> Any:
        """Memory for an array, contiguous and aligned to 256 bytes; what it holds is undefined."""
        ...

    def adopt(self, array: Any) -> Any:
        """An array that TensorRT can read: the given one where possible, else a copy (numpy, strides, alignment)."""
        ...

    def pointer(self, array: Any) -> int: ...

    def row(self, array: Any, index: int) -> Any:
        """``array[index]`` without a copy."""
        ...

    def copy(self, target: Any, source: Any) -> None:
        """Queue a copy of `source` (on this device, or numpy) into `target` (on this device, of the same shape)."""
        ...

    def to_numpy(self, array: Any) -> NDArray[Any]:
        """Wait for the stream and copy an array to the host."""
        ...

    def synchronise(self) -> None:
        """Wait until everything that was queued is done."""
        ...

    def enter(self) -> None:
        """Let what is queued from now on wait for what the caller has queued on its own stream."""
        ...

    def leave(self) -> None:
        """Let what the caller queues from now on wait for what was queued here."""
        ...

    def record(self, work: Callable[[], None]) -> Any:
        """Call `work` and keep what it queues as one CUDA graph, which is not run."""
        ...

    def launch(self, graph: Any) -> None:
        """Queue a recorded graph."""
        ...

    def close(self) -> None: ...


def no_gpu() -> InputError:
    """The error of a device that is not there."""
    return InputError("no CUDA GPU was found here: run on a machine with one, or use target 'onnx'")


def size_bytes(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a contiguous array. Raises InputError for a dtype that no engine has."""
    check_choice("dtype of a tensor", dtype, ITEM_BYTES)
    return int(np.prod(shape, dtype=np.int64)) * ITEM_BYTES[dtype]
