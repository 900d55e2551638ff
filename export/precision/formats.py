"""The two half types: how many digits they hold, how far they reach, and how numbers are rounded to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from ...runtime.errors import InputError, check_choice

Array = NDArray[Any]


@dataclass(frozen=True)
class Half:
    """A 16-bit floating point type.

    Attributes
    ----------
    precision : the project's name of it, "fp16" or "bf16".
    dtype : numpy's name of it, "float16" or "bfloat16".
    element : ONNX's number of it (TensorProto.FLOAT16 or BFLOAT16).
    unit : the largest relative error of rounding a number to it, where it is not subnormal.
    maximum : its largest finite number.
    """

    precision: str
    dtype: str
    element: int
    unit: float
    maximum: float

    @property
    def numpy(self) -> np.dtype[Any]:
        """The type for numpy; bfloat16's comes from ml_dtypes."""
        return np.dtype(ml_dtypes.bfloat16 if self.dtype == "bfloat16" else np.float16)

    def rounded(self, array: Array, name: str) -> Array:
        """`array` (float32) in this type, rounded to the nearest, ties to even.

        Raises
        ------
        InputError
            A finite number of it, the tensor `name`, is too large for the type.
        """
        with np.errstate(over="ignore"):
            half = array.astype(self.numpy)
        if np.any(np.isfinite(array) & np.isinf(half)):
            finite = array[np.isfinite(array)]
            raise InputError(
                f"the tensor {name!r} reaches {np.abs(finite).max():.3g}, but {self.dtype} ends at {self.maximum:.5g}: "
                "keep the layers that use it in float32 (decide() lists them)"
            )
        return half


FP16 = Half("fp16", "float16", int(TensorProto.FLOAT16), 2.0**-11, 65504.0)
BF16 = Half("bf16", "bfloat16", int(TensorProto.BFLOAT16), 2.0**-8, float.fromhex("0x1.fep127"))
HALVES = {half.precision: half for half in (FP16, BF16)}


def half_of(name: str) -> Half:
    """The type called `name`: "fp16" or "float16", "bf16" or "bfloat16"."""
    named = HALVES | {half.dtype: half for half in HALVES.values()}
    check_choice("half precision", name, named)
    return named[name]
