"""The target of a refinement, checked once before it begins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ShapeError
from .settings import RefineSettings


def check_target(target: NDArray[Any], mask: NDArray[Any]) -> None:
    """Refuse a structural target (n, n_layers, n_tokens, d_vision) and a mask that do not fit or say nothing.

    Raises
    ------
    ShapeError, InputError
    """
    if target.ndim != 4 or mask.dtype != np.bool_ or mask.shape != target.shape[1:]:
        raise ShapeError(
            f"target has shape {target.shape} and mask {mask.shape} of {mask.dtype}: "
            "give (n, n_layers, n_tokens, d_vision) and a bool mask without the first axis"
        )
    if not mask.any():
        raise InputError("the mask keeps no structure dimension: select features again with a larger percent")
    _check_finite("structural", target[:, mask])


def check_semantic_target(target: NDArray[Any] | None, n: int, settings: RefineSettings) -> NDArray[np.float32]:
    """The semantic target (n, d) of eq. 6 as float32.

    Raises
    ------
    InputError
        None, another shape, or a number that is not finite.
    """
    if target is None or np.ndim(target) != 2 or len(target) != n:
        given = "none was given" if target is None else f"it has shape {np.shape(target)}"
        raise InputError(
            f"semantic_weight {settings.semantic_weight} needs a semantic_target of shape ({n}, d), "
            f"and {given}: pass one or set semantic_weight to 0"
        )
    _check_finite("semantic", np.asarray(target))
    return np.asarray(target, np.float32)


def _check_finite(what: str, target: NDArray[Any]) -> None:
    bad = np.flatnonzero(~np.isfinite(target).all(axis=1)).tolist()
    if bad:
        raise InputError(f"the {what} target of row {bad} is not finite: leave these trials out")
