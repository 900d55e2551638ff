"""How much each structure dimension and each layer counts in the structural loss (eq. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ShapeError
from .loss import weights_of_layers
from .settings import RefineSettings

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class StructuralWeights:
    """Weights m and w of ``loss[i] = sum_l w[i, l] * sum_d (m[l, d] * error[i, l, d]) ** 2 / max(sum_d m[l, d], 1)``.

    Attributes
    ----------
    dimensions : (n_layers, n_tokens, d_vision) float32
        m, 0 or more and somewhere above 0. A mask of 0 and 1 makes a layer's term the mean over its kept dimensions.
    layers : (n, n_layers) float32
        w, of each trial.

    Raises
    ------
    ShapeError
        Arrays of other ranks, or of different numbers of layers.
    InputError
        A weight is negative or not finite, or no dimension counts.
    """

    dimensions: Float32
    layers: Float32

    def __post_init__(self) -> None:
        for name, rank in (("dimensions", 3), ("layers", 2)):
            array = np.asarray(getattr(self, name), np.float32)
            if array.ndim != rank:
                raise ShapeError(f"the weights' {name} have shape {array.shape}: give {rank} axes")
            if not (np.isfinite(array).all() and (array >= 0).all()):
                raise InputError(f"the weights' {name} hold a negative or no finite number: give 0 or more")
            object.__setattr__(self, name, array)
        if self.layers.shape[1] != len(self.dimensions):
            raise ShapeError(
                f"the weights are of {self.layers.shape[1]} layers and of dimensions of {len(self.dimensions)}: give "
                "both for the same layers"
            )
        if not self.dimensions.any():
            raise InputError("no structure dimension has a weight above 0: select features with a larger percent")

    @classmethod
    def of_settings(cls, settings: RefineSettings, target: Float32, mask: NDArray[np.bool_]) -> StructuralWeights:
        """Those of stage 2 for a target (n, n_layers, n_tokens, d_vision) and the mask of what is kept of it."""
        layers = weights_of_layers(settings.layer_weights, target, mask)
        if settings.loss_mean == "all":  # the loss averages over the kept dimensions; a mean over all is another weight
            layers = layers * mask.sum((-2, -1)).clip(1) / mask[0].size
        return cls(dimensions=mask.astype(np.float32), layers=layers)

    def rows(self, rows: slice | Sequence[int]) -> StructuralWeights:
        """The same for some of the trials, which may come more than once."""
        return StructuralWeights(dimensions=self.dimensions, layers=self.layers[rows])

    def counted(self, target: Float32) -> Float32:
        """A target (n, n_layers, n_tokens, d_vision) with 0 where nothing counts, so that no NaN is left there.

        Raises
        ------
        ShapeError
            The target does not fit the weights.
        InputError
            It is not finite where it counts.
        """
        target = np.asarray(target, np.float32)
        if target.shape != (len(self.layers), *self.dimensions.shape):
            raise ShapeError(
                f"the target has shape {target.shape}, its weights are for {(len(self.layers), *self.dimensions.shape)}"
                ": give one row per trial"
            )
        found: Float32 = np.where(self.dimensions > 0, target, np.float32(0))
        bad = np.flatnonzero(~np.isfinite(found).reshape(len(found), -1).all(axis=1)).tolist()
        if bad:
            raise InputError(f"the structural target of row {bad} is not finite: leave these trials out")
        return found
