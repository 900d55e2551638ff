"""A value per voxel as a NIfTI volume, in the space of the responses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.voxels import Voxels
from ...runtime.errors import InputError
from ...runtime.files import replacing


def volume(values: NDArray[Any], voxels: Voxels | None) -> Any:
    """A nibabel image with each voxel's value at its place, NaN elsewhere.

    Parameters
    ----------
    values : (n_voxels,)
    voxels
        Their places, which the data folder knows where it was prepared from volumes.

    Raises
    ------
    InputError
        Places or their affine are not known.
    """
    import nibabel

    if voxels is None or voxels.affine is None:
        raise InputError(
            "maps need to know where the voxels lie, and this data folder does not say it: prepare it from volumes "
            "(md-train prepare nsd), or write it with Voxels(ijk, affine)"
        )
    shape = tuple(int(n) for n in voxels.ijk.max(axis=0) + 1)
    data = np.full(shape, np.nan, np.float32)
    data[tuple(voxels.ijk.T)] = values
    return nibabel.Nifti1Image(data, voxels.affine)  # type: ignore[no-untyped-call]


def write_volume(path: Path, values: NDArray[Any], voxels: Voxels | None) -> None:
    """Write :func:`volume` as .nii.gz; see there for the errors."""
    import nibabel

    image = volume(values, voxels)
    with replacing(path) as draft:
        named = draft.with_name(f"{draft.name}.nii.gz")  # nibabel goes by the ending
        try:
            nibabel.save(image, named)
            os.replace(named, draft)
        finally:
            named.unlink(missing_ok=True)
