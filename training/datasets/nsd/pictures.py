"""NSD's pictures: nsd_stimuli.hdf5, where they stay, or the smaller copies of styvesg's preparation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....runtime.errors import FileError
from ....runtime.images import ImageU8
from ..foreign import looks_like
from ..reader import Place
from .files import STIMULI, find, maybe

_BRICK, _SMALL = "imgBrick", "stimuli"
_NAME = re.compile(r"S(\d+)_stimuli_(\d+)\.h5py")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Where a subject's pictures are.

    Attributes
    ----------
    sources : one for each of the subject's own pictures, in the order of its design.
    n_stimuli : how many pictures the file of all has; None where only the subject's own are there.
    note : for the report.
    """

    sources: Sequence[Place | Callable[[], ImageU8]]
    n_stimuli: int | None
    note: str


def find_pictures(source: Path, subject: int, ids: Sequence[int], files: dict[Path, str]) -> Pictures:
    """The pictures of a subject.

    Parameters
    ----------
    source : where NSD's files lie; S{subject}_stimuli_{px}.h5py is taken where there is no nsd_stimuli.hdf5.
    ids : 73k ids of the subject's own pictures, from 0.
    files : receives what was found.

    Raises
    ------
    FileError
        There is no file of pictures, or it holds something else, or too few.
    """
    path = maybe(source, STIMULI, "NSD's pictures")
    if path is not None:
        n_stimuli = _look(path, _BRICK, "(n, H, W, 3) uint8", lambda shape: shape[-1] == 3)[0]
        if max(ids) >= n_stimuli:
            raise FileError(
                f"{path} holds {n_stimuli} pictures and subject {subject} saw number {max(ids)}, counted from 0: it is "
                "truncated or another set of pictures, copy NSD's own file again"
            )
        files[path] = "pictures"
        root, name = path.parent, path.name
        places = [Place(root=root, path=name, index=int(number), dataset=_BRICK) for number in ids]
        return Pictures(sources=places, n_stimuli=n_stimuli, note=f"pictures stay in {path}")
    small = sorted(p for p in source.rglob(f"S{subject}_stimuli_*.h5py") if _NAME.fullmatch(p.name))
    if not small:
        find(source, STIMULI, "NSD's pictures")  # says what is missing
    path = small[-1]
    shape = _look(path, _SMALL, "(n, 3, H, W) uint8", lambda shape: shape[1] == 3)
    if shape[0] != len(ids):
        raise FileError(
            f"{path} holds {shape[0]} pictures and subject {subject} has {len(ids)}: it is of another subject or "
            "truncated, make it again"
        )
    files[path] = "pictures (styvesg's preparation)"
    made = [_OfStack(path, index) for index in range(len(ids))]
    return Pictures(sources=made, n_stimuli=None, note=f"pictures are copied from {path}, {shape[2]} px")


@dataclass(frozen=True)
class _OfStack:
    """One picture of (n, 3, H, W)."""

    path: Path
    index: int

    def __call__(self) -> ImageU8:
        import h5py

        try:
            with h5py.File(self.path, "r") as file:
                return np.ascontiguousarray(np.moveaxis(file[_SMALL][self.index], 0, -1))
        except Exception as error:  # h5py raises a dozen types for damaged files
            raise FileError(f"picture {self.index} of {self.path} is damaged ({error}): make it again") from error


def _look(path: Path, name: str, expected: str, fits: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    """The shape of a data set of pictures."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found: Any = file.get(name)
            names = ", ".join(sorted(file)[:5]) or "nothing"
            shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    except OSError as error:
        kind = looks_like(path)
        kind = "truncated or damaged" if kind == "an HDF5 file" else kind
        raise FileError(f"{path} is {kind}, expected HDF5 with pictures {name} {expected}: copy it again") from error
    if shape is None:
        raise FileError(f"{path} holds {names}, expected pictures {name} {expected}: it is another file, copy it again")
    if dtype != np.uint8 or len(shape) != 4 or not fits(shape):
        raise FileError(f"{name} in {path} is {dtype} {shape}, expected pictures {expected}: copy it again")
    return tuple(shape)
