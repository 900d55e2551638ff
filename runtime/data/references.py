"""Pictures named where they lie: a path below a root, or an index inside an array file, and what they must look like.

Tens of thousands of pictures need not be copied into every subject's data folder. Whatever such a name says, only
regular files below the root are read, as pictures, and only pixels of the stated SHA-256 are handed out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import FileError, InputError, MissingExtra, shown
from ..images import ImageU8, pixel_hash, read_image
from .json_types import is_line, is_whole

NUMPY, HDF5 = (".npy",), (".hdf5", ".h5")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[^/\\]+")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One picture that lies elsewhere.

    Attributes
    ----------
    root
        The folder below which it lies.
    path
        Of a picture file below the root, or of an array file (n, H, W, 3) uint8 (.npy, .hdf5, .h5); "/" between names.
    sha256
        :func:`~minddiffuser.runtime.images.pixel_hash` of its decoded pixels, before they are cropped and resized.
    index
        Which picture of an array file, from 0; None for a picture file.
    dataset
        Which data set of an HDF5 file ("imgBrick" in NSD's).

    Raises
    ------
    InputError
        The path leads out of the root or is absolute, the hash is none, or index and dataset do not fit the file.
    """

    root: Path
    path: str
    sha256: str
    index: int | None = None
    dataset: str | None = None

    def __post_init__(self) -> None:
        if not is_line(self.path) or not _is_below(self.path):
            raise InputError(
                f"the picture's path {shown(self.path)} is not below the root: give names with / between them, "
                "without .. and not from the top"
            )
        if not isinstance(self.sha256, str) or not _SHA256.fullmatch(self.sha256):
            raise InputError(f"sha256 of {shown(self.path)} is {shown(self.sha256)}: give 64 hexadecimal digits")
        given = self.index is not None
        if given != self._is_array or (given and not (is_whole(self.index) and 0 <= self.index < 1 << 63)):
            expected = "a whole number from 0" if self._is_array else f"it only for {', '.join(NUMPY + HDF5)} files"
            raise InputError(f"index of {shown(self.path)} is {shown(self.index)}: give {expected}")
        given = self.dataset is not None
        if given != self._is_hdf5 or (given and not (is_line(self.dataset) and _is_below(self.dataset))):
            expected = "the name of a data set, such as imgBrick" if self._is_hdf5 else "it only for HDF5 files"
            raise InputError(f"dataset of {shown(self.path)} is {shown(self.dataset)}: give {expected}")

    @property
    def _is_array(self) -> bool:
        return _suffix(self.path) in NUMPY + HDF5

    @property
    def _is_hdf5(self) -> bool:
        return _suffix(self.path) in HDF5

    @property
    def name(self) -> str:
        """The file's name, with the index where it holds several: "stimuli.hdf5[12]"."""
        name = PurePosixPath(self.path).name
        return name if self.index is None else f"{name}[{self.index}]"

    def __str__(self) -> str:
        return str(self.root / self.path) + ("" if self.index is None else f"[{self.index}]")

    def as_json(self) -> dict[str, Any]:
        """The reference without its root, as it stands in stimuli.json."""
        about = {"path": self.path, "dataset": self.dataset, "index": self.index, "sha256": self.sha256}
        return {name: value for name, value in about.items() if value is not None}

    def read(self) -> ImageU8:
        """Decode the picture, (H, W, 3) uint8 of its own size.

        Raises
        ------
        FileError
            It is missing, damaged, outside the root, or has other pixels than when it was named.
        MissingExtra
            h5py, which reads HDF5 files, is not installed.
        """
        image = _decoded(self)
        found = pixel_hash(image)
        if found != self.sha256:
            raise FileError(
                f"the picture {self} has other pixels than those that the subject saw (SHA-256 {found[:12]}…, expected "
                f"{self.sha256[:12]}…): give the root of the original pictures with --stimuli-root"
            )
        return image

    def place(self) -> Path:
        """Where the file lies; refuses one that is missing, or that a link leads out of the root."""
        root, place = os.path.realpath(self.root), os.path.realpath(self.root / self.path)
        if not Path(place).is_relative_to(root):
            raise FileError(f"the picture {self} is a link out of its root {self.root}: put the file itself there")
        if not os.path.isfile(place):
            raise FileError(
                f"the picture {self} does not exist: give the folder that holds {self.path} with --stimuli-root"
            )
        return Path(place)


def refer(root: Path | str, path: str, *, index: int | None = None, dataset: str | None = None) -> Reference:
    """Name a picture where it lies: decode it once for its hash.

    Parameters
    ----------
    root, path, index, dataset
        See :class:`Reference`.

    Raises
    ------
    InputError, FileError, MissingExtra
        As :class:`Reference` and its ``read``.
    """
    unchecked = Reference(root=Path(root), path=path, index=index, dataset=dataset, sha256="0" * 64)
    return replace(unchecked, sha256=pixel_hash(_decoded(unchecked)))


def reference_from_json(content: object, root: Path, where: str) -> Reference:
    """Read what ``as_json`` of a reference gives.

    Raises
    ------
    FileError
        It is anything else; `where` says where it stands.
    """
    known = {"path", "sha256", "index", "dataset"}
    if not isinstance(content, Mapping) or not {"path", "sha256"} <= set(content) <= known:
        raise FileError(
            f"{where} is {shown(content)}: give an object with path and sha256, and index and dataset for array files"
        )
    try:
        return Reference(root=root, **content)
    except InputError as error:
        raise FileError(f"{where}: {error}") from None


def read_picture(picture: Path | Reference) -> ImageU8:
    """Decode a picture file, or one that is named where it lies, (H, W, 3) uint8 of its own size."""
    return picture.read() if isinstance(picture, Reference) else read_image(picture)


def _decoded(reference: Reference) -> ImageU8:
    place = reference.place()
    if reference.index is None:
        return read_image(place)
    images = _from_hdf5 if reference.dataset is not None else _from_numpy
    return images(place, reference)


def _from_numpy(place: Path, reference: Reference) -> ImageU8:
    try:
        images = np.lib.format.open_memmap(place, mode="r")  # not np.load: nothing but .npy, and never Python objects
    except Exception as error:  # of a damaged header, those of numpy's parser and tokenizer among them
        raise _damaged(place, error) from error
    return _one_of(images, reference)


def _from_hdf5(place: Path, reference: Reference) -> ImageU8:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"the picture {reference} lies in an HDF5 file, which h5py reads: pip install h5py"
        ) from error
    try:
        with h5py.File(place, "r") as file:
            return _one_of(_hdf5_set(h5py, file, reference), reference)
    except FileError:
        raise
    except Exception as error:  # h5py raises a dozen types for damaged files
        raise _damaged(place, error) from error


def _hdf5_set(h5py: Any, file: Any, reference: Reference) -> Any:
    """The data set, if it lies in this very file: HDF5 has links, pieces and views that lead to other files."""
    node = file
    for name in str(reference.dataset).split("/"):
        found = isinstance(node, h5py.Group) and isinstance(node.get(name, getlink=True), h5py.HardLink)
        node = node[name] if found else None
    if not isinstance(node, h5py.Dataset) or node.external or node.is_virtual:
        raise FileError(
            f"{reference.root / reference.path} has no data set {shown(reference.dataset)} of its own: check its name"
        )
    return node


def _one_of(images: Any, reference: Reference) -> ImageU8:
    shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", None)
    if dtype != np.uint8 or shape is None or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise FileError(
            f"{reference.root / reference.path} holds {dtype} {shape}, expected pictures as uint8 (n, H, W, 3): "
            "convert them, or name picture files"
        )
    index = reference.index or 0
    if index >= shape[0]:
        raise FileError(f"the picture {reference} does not exist: the file holds {shape[0]} pictures, counted from 0")
    return np.array(images[index])


def _damaged(place: Path, error: Exception) -> FileError:
    reason = " ".join(str(error).split())
    return FileError(f"the pictures {place} cannot be read ({reason:.100}): the file is damaged, copy it again")


def _is_below(path: str) -> bool:
    return all(_PLAIN.fullmatch(part) and part not in (".", "..") and ":" not in part for part in path.split("/"))


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
