"""`linear`: of each dimension a weighted sum over chosen values of the responses, in numpy alone.

Its file holds index (n_predicted, n_selected) int32 into the flattened responses (of fMRI: voxels), weight of that
shape, bias (n_predicted,), and the placement of its one feature.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ShapeError
from ..files import Array, Expected
from .base import Float32, Placement, Stored, inside, read_arrays

ARRAYS: Expected = {"index": (np.int32, (-1, -1)), "weight": (np.float32, (-1, -1)), "bias": (np.float32, (-1,))}
# Weights looked at together: 16 MB of weights, 32 MB of indices.
_WEIGHTS_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class Linear:
    """A gather and a weighted sum; see :class:`~.base.Decoder`."""

    feature: str
    placement: Placement
    index: NDArray[np.int32]
    weight: Float32
    bias: Float32

    @property
    def placements(self) -> Mapping[str, Placement]:
        return {self.feature: self.placement}

    def prepare(self) -> None:
        """Nothing is left to make: :func:`open_decoder` has checked the arrays."""

    def predict(self, scores: Float32, features: Collection[str]) -> dict[str, Float32]:
        if self.feature not in features:
            return {}
        rows = scores.reshape(len(scores), -1)
        out = np.empty((len(rows), len(self.bias)), np.float32)
        step = max(1, _WEIGHTS_AT_ONCE // self.index.shape[1])
        for start in range(0, len(self.bias), step):
            part = slice(start, start + step)
            chosen, weight = self.index[part].astype(np.intp), self.weight[part]
            for trial, row in enumerate(rows):
                out[trial, part] = np.einsum("tk,tk->t", np.take(row, chosen), weight) + self.bias[part]
        return {self.feature: out}


def check_fitted(arrays: Mapping[str, Array], feature: str, n_targets: int) -> None:
    """Refuse arrays of a fitter that decoding could not read, before they become a file.

    Raises
    ------
    ShapeError
        One is missing, or of another shape or dtype.
    InputError
        Weights are NaN or infinite.
    """
    shape = arrays["index"].shape if "index" in arrays else ()
    good = (
        arrays.keys() == ARRAYS.keys()
        and all(arrays[key].dtype == dtype for key, (dtype, _) in ARRAYS.items())
        and len(shape) == 2
        and shape == arrays["weight"].shape
        and arrays["bias"].shape == (n_targets,) == shape[:1]
    )
    if not good:
        got = ", ".join(f"{key} {array.dtype} {array.shape}" for key, array in sorted(arrays.items()))
        raise ShapeError(
            f"the decoder of {feature} gave {got}: a checkpoint holds index int32 and weight float32 "
            f"({n_targets}, n_selected) and bias float32 ({n_targets},)"
        )
    bad = ~(np.isfinite(arrays["weight"]).all(axis=1) & np.isfinite(arrays["bias"]))
    if bad.any():
        raise InputError(
            f"the decoder of {feature} gave NaN or infinite weights for {int(bad.sum())} of {n_targets} dimensions: "
            "give it a larger penalty, or another decoder"
        )


def open_decoder(stored: Stored) -> Linear:
    """Read the arrays and check that indices stay inside the responses and the feature.

    Raises
    ------
    FileError
        They do not, or the decoder names several features.
    """
    features, size = stored.description["features"], math.prod(stored.response_shape)
    if len(features) != 1:
        raise stored.refuse(f"a linear decoder of the features {', '.join(features)}, expected one feature")
    (feature,) = features
    arrays: dict[str, Array] = read_arrays(stored.path, f"the checkpoint's {feature}", ARRAYS)
    placement = stored.placement(arrays, feature)
    index, weight, bias = (arrays[name] for name in ARRAYS)
    if not (index.shape == weight.shape and len(index) == len(placement.position) == len(bias) and inside(index, size)):
        raise stored.refuse(f"indices and weights do not fit responses of {size} values and {len(bias)} predictions")
    return Linear(feature, placement, index, weight, bias)
