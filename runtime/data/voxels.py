"""Where the voxels of fMRI lie: their places in the scanner's volume, and the volume's in space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FileError, InputError, shown
from ..files import read_tensors, write_tensors

VOXELS = "voxels.safetensors"
_LARGEST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Voxels:
    """The places of a subject's voxels; two are equal where both arrays are.

    Attributes
    ----------
    ijk : (n_voxels, 3) int32
        Indices into the volume, from 0, no two alike; whole numbers of any type are taken.
    affine : (4, 4) float64 or None
        From (i, j, k, 1) to millimetres, as NIfTI has it; None where it is not known.

    Raises
    ------
    InputError
        An array is of another shape or type, or holds values that cannot be.
    """

    ijk: NDArray[np.int32]
    affine: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ijk", _checked_ijk(self.ijk))
        if self.affine is not None:
            object.__setattr__(self, "affine", _checked_affine(self.affine))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Voxels):
            return NotImplemented
        same = np.array_equal(self.ijk, other.ijk) and (self.affine is None) == (other.affine is None)
        return same and (self.affine is None or np.array_equal(self.affine, other.affine))  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]

    def difference(self, other: Voxels) -> str | None:
        """Where as many voxels lie elsewhere in the volume, in words; affines are not compared."""
        # A volume's place in space is estimated anew with each registration, the grid of the responses is not.
        moved = np.flatnonzero((self.ijk != other.ijk).any(axis=1))
        if not len(moved):
            return None
        there, here = (tuple(map(int, voxels.ijk[moved[0]])) for voxels in (self, other))
        more = f" (and {len(moved) - 1} more differ)" if len(moved) > 1 else ""
        return f"voxel {moved[0]} lies at ijk {there} there and {here} here{more}"


def read_voxels(folder: Path, n_voxels: int) -> Voxels | None:
    """The voxels' places from a folder's voxels.safetensors; None without it.

    Raises
    ------
    FileError
        The file is damaged, or does not hold `ijk` (n_voxels, 3) of whole numbers and, where known, `affine` (4, 4).
    """
    path = folder / VOXELS
    if not path.exists():
        return None
    arrays = read_tensors(path, "the voxels' places")
    if "ijk" not in arrays or not set(arrays) <= {"ijk", "affine"}:
        names = ", ".join(sorted(arrays)) or "nothing"
        raise FileError(f"{path} holds {names}: give ijk (n_voxels, 3), and affine (4, 4) where it is known")
    try:
        voxels = Voxels(arrays["ijk"], arrays.get("affine"))
    except InputError as error:
        raise FileError(f"{path}: {error}") from None
    if len(voxels.ijk) != n_voxels:
        raise FileError(f"{path} has the places of {len(voxels.ijk)} voxels, and there are {n_voxels}: give one each")
    return voxels


def tensors_of(voxels: Voxels) -> Mapping[str, NDArray[Any]]:
    """The arrays of voxels.safetensors."""
    return {"ijk": voxels.ijk} if voxels.affine is None else {"ijk": voxels.ijk, "affine": voxels.affine}


def write_voxels(folder: Path, voxels: Voxels) -> None:
    """Write a folder's voxels.safetensors."""
    write_tensors(folder / VOXELS, tensors_of(voxels))


def _checked_ijk(given: ArrayLike) -> NDArray[np.int32]:
    ijk = _array(given, "ijk")
    if ijk.ndim != 2 or ijk.shape[1] != 3 or ijk.dtype.kind not in "iu":
        raise InputError(f"ijk is {ijk.dtype} {ijk.shape}: give whole numbers (n_voxels, 3), each voxel's indices")
    if ijk.size and (ijk.min() < 0 or ijk.max() > _LARGEST):
        bad = ijk[(ijk < 0) | (ijk > _LARGEST)][0]
        raise InputError(f"ijk holds {bad}: give indices into the volume, from 0")
    places, first, counts = np.unique(ijk, axis=0, return_index=True, return_counts=True)
    if len(places) < len(ijk):
        twice = first[counts > 1].min()
        raise InputError(f"ijk has {tuple(map(int, ijk[twice]))} more than once: two voxels cannot share a place")
    return _frozen(ijk.astype(np.int32))


def _checked_affine(given: ArrayLike) -> NDArray[np.float64]:
    affine = _array(given, "affine")
    if affine.shape != (4, 4) or affine.dtype.kind not in "iuf" or not np.isfinite(affine).all():
        raise InputError(
            f"affine is {affine.dtype} {affine.shape}: give (4, 4) finite numbers, as a NIfTI file has them"
        )
    if affine[3].tolist() != [0, 0, 0, 1]:
        raise InputError(f"the last row of affine is {affine[3].tolist()}, expected [0, 0, 0, 1]: is it transposed?")
    return _frozen(affine.astype(np.float64))


def _array(given: ArrayLike, name: str) -> NDArray[Any]:
    try:
        return np.asarray(given)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} is {shown(given)}: give an array") from error


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
