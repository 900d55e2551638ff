"""One session's betas of the voxels in a mask, from HDF5 or NIfTI, a slab of trials at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import FileError
from ..foreign import looks_like
from .volumes import nifti_shape, nifti_slabs

F32 = NDArray[np.float32]
SCALE = 300  # NSD stores per cent signal change times 300 as int16


def n_trials_of(path: Path, shape: tuple[int, int, int]) -> int:
    """How many trials a session's file holds, after a look at its shape and type.

    Parameters
    ----------
    path : .hdf5 or .mat (version 7.3), data set betas (n_trials, Z, Y, X); .nii or .nii.gz (X, Y, Z, n_trials).
    shape : (X, Y, Z) of the masks.

    Raises
    ------
    FileError
        It is another file, or of other axes.
    """
    what = f"the betas {path.name}"
    if _is_nifti(path):
        found, dtype = nifti_shape(path, what)
        if len(found) != 4:
            raise FileError(f"{what} in {path.parent} are an image {found}, expected (X, Y, Z, trials): copy it again")
        space, n_trials, names = found[:3], found[3], "(X, Y, Z, trials)"
        wanted, other = shape, shape[::-1]
    else:
        with _dataset(path) as betas:
            found, dtype = betas.shape, betas.dtype
        if len(found) != 4:
            raise FileError(f"{what} in {path.parent} are {found}, expected (trials, Z, Y, X): copy it again")
        space, n_trials, names = found[1:], found[0], "(trials, Z, Y, X)"
        wanted, other = shape[::-1], shape
    if space == other != wanted:
        raise FileError(
            f"{path} is {found}, with the axes of the masks {shape} in the wrong order: NSD's are {names}; reverse "
            f"them ({'betas.transpose(2, 1, 0, 3)' if _is_nifti(path) else 'betas.transpose(0, 3, 2, 1)'}) or copy "
            "NSD's own file again"
        )
    if space != wanted:
        raise FileError(
            f"{path} is {found}, expected {names} with the masks' (X, Y, Z) = {shape}: it is of another subject or "
            "another space than the masks, check --subject and --space"
        )
    if dtype.kind not in "iuf":
        raise FileError(f"{path} holds {dtype}, expected int16: copy it again")
    return int(n_trials)


def read_session(path: Path, n_trials: int, ijk: NDArray[np.integer[Any]], memory: int) -> F32:
    """The betas of some voxels in per cent signal change, (n_trials, n_voxels) float32.

    Whole numbers are divided by 300; floats are taken as they are.

    Parameters
    ----------
    path, n_trials : a file, and what :func:`n_trials_of` says of it.
    ijk : (n_voxels, 3), indices into (X, Y, Z).
    memory : bytes that a slab of whole volumes may take.

    Raises
    ------
    FileError
        It is truncated or damaged.
    """
    betas, start = np.empty((n_trials, len(ijk)), np.float32), 0
    for slab in _slabs(path, memory):
        n, nz, ny, nx = slab.shape
        places = (ijk[:, 2].astype(np.intp) * ny + ijk[:, 1]) * nx + ijk[:, 0]
        part = betas[start : start + n]
        part[:] = slab.reshape(n, nz * ny * nx)[:, places]
        if slab.dtype.kind in "iu":
            part /= SCALE
        start += n
    return betas


def _slabs(path: Path, memory: int) -> Iterator[NDArray[Any]]:
    """The trials of a session, as arrays (k, Z, Y, X)."""
    if _is_nifti(path):
        shape, dtype = nifti_shape(path, f"the betas {path.name}")
        yield from nifti_slabs(path, f"the betas {path.name}", _within(memory, shape[:3], dtype))
        return
    with _dataset(path) as betas:
        n = _within(memory, betas.shape[1:], betas.dtype)
        for start in range(0, betas.shape[0], n):
            try:
                yield betas[start : start + n]
            except Exception as error:  # h5py raises a dozen types for damaged files
                raise FileError(
                    f"{path} is truncated or damaged from trial {start} on ({_line(error)}): copy it again"
                ) from error


def _within(memory: int, volume: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return max(1, memory // (int(np.prod(volume)) * dtype.itemsize))


@contextmanager
def _dataset(path: Path) -> Iterator[Any]:
    """The data set `betas` of an HDF5 file, open."""
    import h5py

    expected = "HDF5 with a data set betas (trials, Z, Y, X) int16"
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        found = looks_like(path)
        found = f"truncated or damaged ({_line(error)})" if found == "an HDF5 file" else found
        raise FileError(f"{path} is {found}, expected {expected}: copy it again") from error
    with file:
        betas = file.get("betas")
        if not isinstance(betas, h5py.Dataset):
            names = ", ".join(sorted(file)[:5]) or "nothing"
            raise FileError(f"{path} holds {names}, expected {expected}: copy NSD's own file again")
        yield betas


def _is_nifti(path: Path) -> bool:
    return path.name.endswith((".nii", ".nii.gz"))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:80]
