"""A selection's correlations, kept beside the features: of decoders that are compared, only the first computes them.

Their file's name is a hash of everything that decides them, versions of libraries among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import FileError
from ..runtime.files import hash_of_json, read_tensors, write_tensors

Float64 = NDArray[np.float64]


def kept_or_made(
    folder: Path, ingredients: Mapping[str, Any], shape: tuple[int, int], make: Callable[[], Float64]
) -> Float64:
    """Correlations (n_folds, n_dimensions) that an earlier fit kept in `folder`, or those of `make`, which are kept.

    A damaged file is made again.
    """
    path = folder / f"selection-{hash_of_json(ingredients)[:32]}.safetensors"
    if path.exists():
        try:
            found = read_tensors(path, "a kept selection").get("correlations")
        except FileError:
            found = None
        if found is not None and found.dtype == np.float64 and found.shape == shape and np.isfinite(found).all():
            return found
    made = make()
    write_tensors(path, {"correlations": made})
    return made
