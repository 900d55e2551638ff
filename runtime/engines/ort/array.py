"""An array owned by ONNX Runtime, on any device, with a dtype and a shape like other arrays."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..base import dtype_name

# ONNX Runtime's names of number types.
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}


class OrtArray:
    """An OrtValue. `numpy()` copies it to the host."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.dtype: str = DTYPES.get(value.data_type(), value.data_type())
        self.shape: tuple[int, ...] = tuple(value.shape())

    @classmethod
    def adopt(cls, array: Any, device: str, number: int) -> Self | _Pointer:
        """The given array where it is on the device already, else a copy there."""
        if isinstance(array, cls):
            return array
        if hasattr(array, "data_ptr") and array.device.type == device:
            return _Pointer(array.contiguous(), device, number)
        import onnxruntime

        solid = np.ascontiguousarray(array.cpu() if hasattr(array, "cpu") else array)
        return cls(onnxruntime.OrtValue.ortvalue_from_numpy(solid, device, number))

    def bind(self, binding: Any, name: str) -> None:
        binding.bind_ortvalue_input(name, self.value)

    def numpy(self) -> NDArray[Any]:
        """A copy on the host."""
        return np.asarray(self.value.numpy())


class _Pointer:
    """A torch tensor that a session reads in place; torch's own queued work on it is waited for first."""

    def __init__(self, tensor: Any, device: str, number: int) -> None:
        self._tensor, self._device, self._number = tensor, device, number

    def bind(self, binding: Any, name: str) -> None:
        tensor = self._tensor
        if self._device == "cuda":
            import torch

            torch.cuda.current_stream(tensor.device).synchronize()
        binding.bind_input(
            name, self._device, self._number, np.dtype(dtype_name(tensor)), tuple(tensor.shape), tensor.data_ptr()
        )
