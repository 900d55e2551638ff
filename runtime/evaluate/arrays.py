"""Pictures in one array: .npy, .npz, .safetensors, .pt and .h5 files, of which one picture at a time is read."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError, MissingExtra, ShapeError
from ..files import natural
from ..metrics.sources import Float32

Row = NDArray[Any]
# A decoder of latents leaves the range a little; published evaluations clip, and so do we.
_MARGIN = 0.25
# Below this, floats above 1 are no pictures of 0 to 255.
_BRIGHT = 16.0
# What files begin with: numpy's, and those of PyTorch's two formats, a zip archive and a pickle.
_NPY, _PYTORCH = b"\x93NUMPY", (b"PK", b"\x80")


@dataclass(frozen=True, eq=False)
class Table:
    """An array of a file, of which rows are read one by one.

    Attributes
    ----------
    shape, row
        Of the whole; index -> one row along the first axis.
    """

    shape: tuple[int, ...]
    row: Callable[[int], Row]


@dataclass(frozen=True, eq=False)
class ArrayPicture:
    """One picture of an array.

    Attributes
    ----------
    read
        Gives it as it is stored: (H, W), (H, W, c) or (c, H, W), with 1, 3 or 4 channels.
    where
        For messages.
    channels_first, white
        How it is laid out, and the value of white.
    """

    read: Callable[[], Row]
    where: str
    channels_first: bool
    white: float

    def digest(self) -> str:
        row = np.ascontiguousarray(self.read())
        head = f"{row.shape} {row.dtype.str} {self.channels_first} {self.white}".encode()
        return hashlib.sha256(head + row.tobytes()).hexdigest()

    def image(self) -> Float32:
        row = self.read().astype(np.float32) / np.float32(self.white)
        if row.ndim == 2:
            row = row[None]
        elif not self.channels_first:
            row = row.transpose(2, 0, 1)
        if not np.isfinite(row).all():
            raise FileError(f"{self.where} holds NaN or infinite values: make it again, or leave it out")
        row = row.clip(0, 1)
        if len(row) == 4:  # over white, as in files
            row = row[:3] * row[3] + (1 - row[3])
        return np.ascontiguousarray(row if len(row) == 3 else np.repeat(row[:1], 3, axis=0))


@dataclass(frozen=True, eq=False)
class Stack:
    """The pictures of an array file.

    Attributes
    ----------
    names
        Of each stimulus's pictures where the file has names, else None.
    pictures
        Of each stimulus, one or several.
    notes
        Sentences on how the file was read.
    """

    names: tuple[str, ...] | None
    pictures: tuple[tuple[ArrayPicture, ...], ...]
    notes: tuple[str, ...] = ()


def open_arrays(path: Path, stack: ExitStack) -> Stack:
    """Open an array file.

    Parameters
    ----------
    path
        (n, H, W, 3) or (n, 3, H, W), uint8, floats in [0, 1], or floats from 0 to 255; also (n, k, ...) with k pictures
        of each stimulus, one or four channels, or none. A file with one such array, or one picture per name.
    stack
        Closes the file, and takes away what was unpacked.

    Raises
    ------
    FileError, ShapeError
        Damaged, or arrays that are no pictures.
    MissingExtra
        The file's library is not installed.
    """
    tables = READERS[path.suffix.lower()](path, stack)
    shapes = ", ".join(f"{name or 'an array'} {table.shape}" for name, table in list(tables.items())[:4]) or "nothing"
    stacks = {name: table for name, table in tables.items() if len(table.shape) in (4, 5)}
    if len(stacks) > 1:
        raise ShapeError(f"{path} holds several arrays of pictures ({shapes}): save the one that is meant in a file")
    if stacks:
        table = next(iter(stacks.values()))
        return _stack(path, table)
    named = sorted(tables, key=natural)
    if not named or any(len(tables[name].shape) not in (2, 3) for name in named) or named == [""]:
        raise ShapeError(f"{path} holds {shapes}: expected pictures (n, H, W, 3) or (n, 3, H, W)")
    rows = [_whole(tables[name]) for name in named]
    found = [_pictures(path, [row], f"{name} in {path}") for name, row in zip(named, rows, strict=True)]
    return Stack(
        tuple(named),
        tuple(pictures for pictures, _ in found),
        tuple(dict.fromkeys(note for _, notes in found for note in notes)),
    )


def _whole(table: Table) -> Callable[[], Row]:
    return lambda: np.stack([table.row(index) for index in range(table.shape[0])])


def _stack(path: Path, table: Table) -> Stack:
    """Of an array with a first axis for stimuli, and perhaps a second one for several pictures of each."""
    n, each = table.shape[0], table.shape[1] if len(table.shape) == 5 else 1
    if not n or not each:
        raise ShapeError(f"{path} holds an array {table.shape}, which has no picture: save it again")

    def reader(index: int, sample: int | None) -> Callable[[], Row]:
        return lambda: table.row(index) if sample is None else table.row(index)[sample]

    samples: list[int | None] = [None] if len(table.shape) == 4 else list(range(each))
    rows = [reader(index, sample) for index in range(n) for sample in samples]
    pictures, notes = _pictures(path, rows, str(path))
    step = len(samples)
    return Stack(None, tuple(pictures[start : start + step] for start in range(0, len(pictures), step)), notes)


def _pictures(
    path: Path, rows: list[Callable[[], Row]], where: str
) -> tuple[tuple[ArrayPicture, ...], tuple[str, ...]]:
    """Rows of one layout and one range as pictures; every value is looked at once."""
    first = rows[0]()
    channels_first = _channels_first(first.shape, where)
    white, notes = _white(rows, first.dtype, where)
    pictures = tuple(
        ArrayPicture(row, where if len(rows) == 1 else f"picture {number} of {where}", channels_first, white)
        for number, row in enumerate(rows)
    )
    return pictures, notes


def _channels_first(shape: tuple[int, ...], where: str) -> bool:
    counts = (1, 3, 4)
    first, last = (len(shape) == 3 and shape[axis] in counts for axis in (0, -1))
    if 0 in shape or (len(shape) != 2 and not (first or last)):
        raise ShapeError(
            f"{where} holds pictures of shape {shape}: expected (H, W, 3) or (3, H, W), or one or four channels"
        )
    if first and last:
        raise ShapeError(f"{where} holds pictures of shape {shape}: it is not clear which axis is the colours'")
    return first


def _white(rows: list[Callable[[], Row]], dtype: np.dtype[Any], where: str) -> tuple[float, tuple[str, ...]]:
    """The value of white, by what kind of numbers there are."""
    if dtype == np.uint8:
        return 255.0, ()
    if dtype.kind != "f":
        raise ShapeError(f"{where} holds {dtype}: expected uint8, or floats in [0, 1]: convert it")
    low, high = np.inf, -np.inf
    for row in rows:
        values = row()
        finite = values[np.isfinite(values)]  # one that is not is refused where it is read, and may be left out
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low >= -_MARGIN and high <= 1 + _MARGIN:
        outside = low < 0 or high > 1
        return 1.0, (f"{where} spans {low:.3g} to {high:.3g} and was clipped to [0, 1]",) if outside else ()
    if low >= 0 and _BRIGHT < high <= 255:
        return 255.0, (f"{where} was taken for pictures of 0 to 255, since it spans {low:.3g} to {high:.4g}",)
    raise ShapeError(
        f"{where} spans {low:.4g} to {high:.4g}: expected uint8, floats in [0, 1], or floats from 0 to 255: scale it"
    )


def _npy(path: Path, stack: ExitStack) -> dict[str, Table]:
    return {"": _mapped(path, path)}


def _mapped(file: Path, path: Path) -> Table:
    try:
        with open(file, "rb") as opened:  # numpy takes anything else for a pickle
            if opened.read(len(_NPY)) != _NPY:
                raise ValueError("it is no .npy file")
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise FileError(
                f"{path} holds Python objects, which are never opened: save one plain array (n, H, W, 3)"
            ) from error
        raise _damaged(path, error) from error
    if array.ndim == 0:
        return Table((), lambda _: np.asarray(array))
    return Table(array.shape, lambda index: np.asarray(array[index]))


def _npz(path: Path, stack: ExitStack) -> dict[str, Table]:
    """Each array unpacked beside, since a packed one cannot be read in parts."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
    tables = {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            for number, name in enumerate(names):
                place = folder / f"{number}.npy"
                with archive.open(name) as packed, open(place, "wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
                tables[name.removesuffix(".npy")] = _mapped(place, path)
    except FileError:
        raise
    except (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error
    return tables


def _safetensors(path: Path, stack: ExitStack) -> dict[str, Table]:
    from safetensors import safe_open

    try:
        file = stack.enter_context(safe_open(path, framework="np"))
        return {name: _slice(file.get_slice(name)) for name in file.keys()}
    except Exception as error:  # safetensors' own type, and others by its version
        raise _damaged(path, error) from error


def _slice(part: Any) -> Table:
    return Table(tuple(part.get_shape()), lambda index: np.asarray(part[index : index + 1])[0])


def _torch(path: Path, stack: ExitStack) -> dict[str, Table]:
    """Tensors alone: nothing in the file is run."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{path} is a file of PyTorch's, which is not installed: pip install 'minddiffuser[torch]', or save the "
            "pictures with numpy.save"
        ) from error

    def load(mapped: bool) -> Any:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)

    try:
        with open(path, "rb") as opened:
            if not opened.read(2).startswith(_PYTORCH):
                raise ValueError("it is no file of PyTorch's")
        try:
            content = load(True)
        except RuntimeError:  # a file of the old format cannot be mapped
            content = load(False)
    except Exception as error:  # it raises the unpickler's own types, and many others for damaged files
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise FileError(
                f"{path} holds Python objects besides tensors, which are never opened: save the tensor alone"
            ) from error
        raise _damaged(path, error) from error
    tensors = content if isinstance(content, Mapping) else {"": content}
    return {str(name): _tensor(value) for name, value in tensors.items() if isinstance(value, torch.Tensor)}


def _tensor(tensor: Any) -> Table:
    half = str(tensor.dtype) == "torch.bfloat16"  # which numpy does not have
    rows = tensor.detach()
    return Table(tuple(rows.shape), lambda index: np.asarray((rows[index].float() if half else rows[index]).numpy()))


def _hdf5(path: Path, stack: ExitStack) -> dict[str, Table]:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{path} is an HDF5 file, for which h5py is needed: pip install 'minddiffuser[data]', or save the pictures "
            "with numpy.save"
        ) from error
    try:
        file = stack.enter_context(h5py.File(path, "r"))
        found: dict[str, Any] = {}
        file.visititems(lambda name, part: found.update({name: part}) if isinstance(part, h5py.Dataset) else None)
    except (OSError, RuntimeError) as error:
        raise _damaged(path, error) from error
    return {name: _dataset(part) for name, part in found.items()}


def _dataset(part: Any) -> Table:
    return Table(tuple(part.shape), lambda index: np.asarray(part[index]))


def _damaged(path: Path, error: Exception) -> FileError:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return FileError(f"{path} cannot be read ({reason}): it is truncated or damaged, save it again")


READERS: dict[str, Callable[[Path, ExitStack], dict[str, Table]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".pt": _torch,
    ".pth": _torch,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}
