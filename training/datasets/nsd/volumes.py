"""NIfTI volumes of NSD: masks and atlases, which are small, and sessions of betas, read volume by volume."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import FileError
from ..foreign import looks_like


def read_volume(path: Path, what: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """A volume (X, Y, Z), and its affine (4, 4).

    Raises
    ------
    FileError
        It is another file, damaged, or has another number of axes.
    """
    image = _open(path, what)
    try:
        array = np.asanyarray(image.dataobj)
    except Exception as error:  # truncated: gzip's, zlib's and numpy's own errors
        raise FileError(f"{what} at {path} is truncated or damaged ({error}): copy it again") from error
    if array.ndim != 3:
        raise FileError(f"{what} at {path} is an image {array.shape}, expected a volume (X, Y, Z): give that one")
    return array, np.asarray(image.affine, np.float64)


def nifti_shape(path: Path, what: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an image, from its header."""
    image = _open(path, what)
    return tuple(image.shape), np.dtype(image.get_data_dtype())


def nifti_slabs(path: Path, what: str, n_volumes: int) -> Iterator[NDArray[Any]]:
    """The volumes of an image (X, Y, Z, n), as arrays (k, Z, Y, X), k at most `n_volumes`, in one pass over the file.

    nibabel would unpack a compressed file from its start for each slab.

    Raises
    ------
    FileError
        It is truncated.
    """
    image = _open(path, what)
    dtype, shape = np.dtype(image.get_data_dtype()).newbyteorder(image.header.endianness), tuple(image.shape)
    scale, shift = image.header.get_slope_inter()
    size = int(np.prod(shape[:3]))
    with _stream(path) as file:
        try:
            file.read(int(image.dataobj.offset))
            for start in range(0, shape[3], n_volumes):
                count = min(n_volumes, shape[3] - start)
                content = file.read(count * size * dtype.itemsize)
                if len(content) < count * size * dtype.itemsize:
                    raise EOFError(f"it ends in volume {start + len(content) // (size * dtype.itemsize)} of {shape[3]}")
                slab = np.frombuffer(content, dtype).reshape(count, *shape[2::-1])
                scaled = scale not in (None, 1.0) or shift not in (None, 0.0)
                yield slab * np.float32(scale) + np.float32(shift) if scaled else slab
        except (EOFError, OSError, zlib.error) as error:
            raise FileError(f"{what} at {path} is truncated or damaged ({error}): copy it again") from error


def _stream(path: Path) -> gzip.GzipFile | IO[bytes]:
    return gzip.open(path) if path.name.endswith(".gz") else open(path, "rb")


def _open(path: Path, what: str) -> Any:
    import nibabel

    if not path.is_file():
        raise FileError(f"{what} is missing: put {path.name} into {path.parent}")
    try:
        return nibabel.load(path)
    except Exception as error:  # nibabel raises a dozen types for damaged and foreign files
        raise FileError(f"{what} at {path} is {looks_like(path)}, expected a NIfTI image: copy it again") from error
