"""What a file really is, for messages about one that was given in place of another; arrays opened without surprises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.recognise import NPY, recognise
from ...runtime.errors import FileError

_PICKLED = (
    "a Python object pickled into a .npy file, as THINGS-EEG2's preprocessed_eeg_*.npy and raw_eeg_*.npy are "
    "(md-train prepare things-eeg2 reads those)"
)


def looks_like(path: Path) -> str:
    """What a file is, in words: "a NIfTI image", "a NumPy array float64 (200, 80, 17, 100)", "truncated" and the like.

    Parameters
    ----------
    path : a file that is there; one that cannot be read is described as that.
    """
    try:
        kind = recognise(path)
        if kind is NPY:
            return _npy(path)
    except OSError as error:
        return f"not readable ({error.strerror or error})"
    except ValueError as error:
        return f"a damaged NumPy array ({' '.join(str(error).split())[:80]})"
    return "no kind of file that is known" if kind is None else kind.name


def _npy(path: Path) -> str:
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _fortran, dtype = read(file)
    return _PICKLED if dtype.hasobject else f"a NumPy array {dtype} {shape}"


def map_npy(path: Path, expected: str) -> NDArray[Any]:
    """Map the array of a .npy file, read-only, and never a Python object.

    Parameters
    ----------
    path : the file.
    expected : what it should hold, for messages ("responses (n_pictures, n_voxels)").

    Raises
    ------
    FileError
        It is missing, truncated, or something else; the message says what it looks like.
    """
    if not path.is_file():
        raise FileError(f"{path} is missing: expected {expected} there")
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        found = looks_like(path)
        cut = found.startswith("a NumPy array")
        reason = f"is {found}" if not cut else f"is truncated (its header says {found[len('a NumPy array ') :]})"
        raise FileError(
            f"{path} {reason}, expected {expected}: {'copy it again' if cut else 'give the right file'}"
        ) from error
    return mapped
