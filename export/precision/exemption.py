"""One line of a precision map: a layer that stays in float32, and the measurement that decided it."""

from __future__ import annotations

from typing import Literal, TypedDict

Rule = Literal["overflow", "rounding", "operator", "quantisation"]


class Exemption(TypedDict):
    """Why a layer is kept in float32. It goes into the manifest as it is: every number is finite.

    Keys
    ----
    layer : name of the node.
    operator : its ONNX operator.
    tensor : the input or output that broke the rule.
    rule : "overflow" (a value is too large for the type; or, of a ReduceMean, the sum that it divides, which is then
        `measured`; or NaN or infinite already in float32: then `measured` is the number of such elements and the limit
        0), "rounding" (too many digits lost), "operator" (ONNX or TensorRT has no such kernel; `measured` and `limit`
        are 0) or "quantisation" (too much lost in int8).
    measured : what was measured, in the terms of the rule.
    limit : what the rule allows.
    """

    layer: str
    operator: str
    tensor: str
    rule: Rule
    measured: float
    limit: float
