"""What a person gives to be reconstructed: a data folder's test split, or an array file; and which trials are good."""

from __future__ import annotations

import hashlib
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data.folder import open_data
from .data.nan import find_holes, numbers
from .errors import FileError, InputError, ShapeError
from .files import natural, read_tensors
from .images import fit_square, list_pictures, read_image
from .recognise import NPY, SAFETENSORS, recognise

Rows = NDArray[Any] | Sequence[NDArray[Any]]
ARRAY_SUFFIXES = (".safetensors", ".npz", ".npy")
# Beyond so many standard deviations of the training responses a trial is an artefact, and its picture noise or NaN.
MOST_SD = 1e6
_KEY = "responses"
# What numpy raises for damaged files, its header's tokenizer and the zip reader included.
_NUMPY_ERRORS = (
    *(ValueError, OSError, EOFError, MemoryError, NotImplementedError, RuntimeError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """The trials to reconstruct.

    Attributes
    ----------
    rows
        One array per trial, as they were given; :func:`screen` says which are good.
    hash
        SHA-256 over the trials' shapes, dtypes and bytes.
    subject
        Known for data folders only.
    pictures
        The file of the picture that each trial showed, or None where it is not known.
    captions
        Per trial, captions of that picture; empty where there are none.
    simulated
        Whether the data folder says that its subject was simulated.
    """

    rows: Rows
    hash: str
    subject: str | None = None
    pictures: tuple[Path, ...] | None = None
    captions: tuple[tuple[str, ...], ...] = ()
    simulated: bool = False


def open_responses(path: Path | str) -> Responses:
    """Read responses.

    Parameters
    ----------
    path
        A data folder (its test split, stimuli and captions); or a .npy file (n_trials, n_voxels); or a .npz or
        .safetensors file that holds such an array under "responses", or one (n_voxels,) array per trial, taken in
        the order of their names (2 before 10).

    Raises
    ------
    FileError
        Missing, damaged, or of another kind or version.
    ShapeError
        An array of another rank, or not floating point.
    """
    path = Path(path)
    if path.is_dir():
        return _data_folder(path)
    if not path.exists():
        raise FileError(f"the responses {path} do not exist: give a data folder or a {', '.join(ARRAY_SUFFIXES)} file")
    rows = _array_file(path)
    return Responses(rows=rows, hash=_hash(rows))


def with_pictures(responses: Responses, folder: Path | str) -> Responses:
    """The same trials with a person's own pictures, in the order of their names, as what was seen.

    Raises
    ------
    FileError
        The folder is missing or holds no picture.
    InputError
        There are not as many pictures as trials.
    """
    pictures = list_pictures(folder)
    if len(pictures) != len(responses.rows):
        raise InputError(
            f"{folder} holds {len(pictures)} pictures and there are {len(responses.rows)} trials: "
            "give one picture per trial, named in the trials' order"
        )
    return Responses(
        rows=responses.rows,
        hash=responses.hash,
        subject=responses.subject,
        pictures=tuple(pictures),
        simulated=responses.simulated,
    )


def seen(pictures: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """The pictures as squares of `size` px, (n, size, size, 3) uint8.

    Raises
    ------
    FileError
        A picture cannot be decoded.
    """
    return np.stack([fit_square(read_image(path), size) for path in pictures])


def screen(
    rows: Rows, n_voxels: int, scored: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Separate good trials from bad ones.

    A trial is bad if it has another number of voxels than expected, holds NaN or infinite values, has the same value
    in every voxel, or lies more than `MOST_SD` standard deviations from the training responses in some voxel.

    Parameters
    ----------
    rows
        One array per trial.
    n_voxels
        As the checkpoint was fitted on.
    scored
        (n, n_voxels) responses to z-scores, :meth:`~minddiffuser.runtime.decode.Checkpoint.scored`.

    Returns
    -------
    responses : (n_trials, n_voxels) float32
        Zeros in the rows of bad trials.
    skipped : trial -> what is wrong with it

    Raises
    ------
    ShapeError
        Every trial has the same wrong number of voxels: that is another brain, not a bad trial.
    InputError
        There is no trial, or no good one.
    """
    if not len(rows):
        raise InputError("the responses hold no trial: check how they were exported")
    widths = {len(row) for row in rows}
    if len(widths) == 1 and widths != {n_voxels}:
        raise ShapeError(
            f"responses have {widths.pop()} voxels, the checkpoint was fitted on {n_voxels}: "
            "give the same subject's responses with the same voxels in the same order"
        )
    responses = np.zeros((len(rows), n_voxels), np.float32)
    skipped: dict[int, str] = {}
    for trial, row in enumerate(rows):
        fault = _fault(row, n_voxels, scored)
        if fault is None:
            responses[trial] = row
        else:
            skipped[trial] = fault
    if len(skipped) == len(rows):
        raise InputError(
            f"none of the {len(rows)} trials can be reconstructed (trial 0: {skipped[0]}): "
            f"{voxels_to_leave_out(rows, n_voxels) or 'check how the responses were exported'}"
        )
    return responses, skipped


def voxels_to_leave_out(rows: Rows, n_voxels: int) -> str | None:
    """What a person can do where few voxels hold the NaN of many trials, so that no trial is lost; else None."""
    whole = [row for row in rows if len(row) == n_voxels]
    holes = find_holes(rows if isinstance(rows, np.ndarray) else np.stack(whole)) if whole else None
    n_saved = 0 if holes is None else len(holes.trials) - len(holes.broken)
    if holes is None or n_saved < 2 or not holes.voxels_cost_less:
        return None
    return (
        f"{n_saved} trials hold NaN or infinite values in {numbers('voxel', holes.voxels)} only: leave these voxels "
        "out, of the training data too, and fit again, and those trials can be reconstructed"
    )


def _fault(
    row: NDArray[Any], n_voxels: int, scored: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> str | None:
    if len(row) != n_voxels:
        return f"it has {len(row)} voxels, expected {n_voxels}"
    with np.errstate(over="ignore"):
        narrow = row.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(narrow))
    if len(bad):
        return f"{len(bad)} of {n_voxels} values are NaN or infinite, in {numbers('voxel', bad)}"
    if n_voxels > 1 and bool((narrow == narrow[0]).all()):
        return f"every voxel is {float(narrow[0]):g}"
    furthest = float(np.abs(scored(narrow[None])).max())
    if not furthest <= MOST_SD:  # NaN too
        return f"a voxel lies {furthest:.2g} standard deviations from training, expected at most {MOST_SD:.0g}"
    return None


def _data_folder(folder: Path) -> Responses:
    data = open_data(folder, splits=("test",))
    rows, stimulus = data.responses("test"), data.stimulus("test").tolist()
    pictures, captions = data.image_paths("test"), data.captions("test")
    return Responses(
        rows=rows,
        hash=_hash(rows),
        subject=data.subject,
        pictures=tuple(pictures[index] for index in stimulus),
        captions=tuple(tuple(captions[index]) for index in stimulus) if captions else (),
        simulated=str(data.provenance.get("kind", "")).startswith("simulated"),
    )


def _array_file(path: Path) -> Rows:
    """Rows of an array file, whose suffix and contents must agree."""
    try:
        kind = recognise(path)
    except OSError as error:
        raise FileError(f"the responses {path} cannot be read ({error.strerror}): check the path") from error
    expected = f"expected a data folder or a {', '.join(ARRAY_SUFFIXES)} file"
    if kind is None:
        raise FileError(f"the responses {path} are of no known kind, {expected}: save the array with numpy.save")
    if not kind.suffix or kind.suffix != path.suffix.lower():
        raise FileError(f"the responses {path} are {kind.name}, {expected}: {kind.advice}")
    if kind is SAFETENSORS:
        return _rows(read_tensors(path, "the responses"), str(path))
    try:
        content = _mapped(path) if kind is NPY else _archive(path)
    except _NUMPY_ERRORS as error:
        raise _unreadable(path, error) from error
    return _rows(content, str(path)) if isinstance(content, dict) else _matrix(content, str(path))


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.view(np.ndarray)


def _archive(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _unreadable(path: Path, error: Exception) -> FileError:
    # Numpy advises to unpickle, which runs a stranger's code, or only says that it cannot map objects.
    if any(word in str(error) for word in ("allow_pickle", "pickled", "Python objects")):
        return FileError(
            f"the responses {path} cannot be read: they hold Python objects (dtype object), which are never opened; "
            "save one plain float32 array (n_trials, n_voxels), or one (n_voxels,) array per trial in a .npz"
        )
    reason = (
        "they ask for more memory than there is" if isinstance(error, MemoryError) else " ".join(str(error).split())
    )
    return FileError(
        f"the responses {path} cannot be read ({reason:.100}): they are truncated or damaged, save a float32 array"
    )


def _rows(arrays: dict[str, NDArray[Any]], where: str) -> Rows:
    if _KEY in arrays:
        return _matrix(arrays[_KEY], where)
    if not arrays or any(array.ndim != 1 for array in arrays.values()):
        found = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items())[:4]) or "nothing"
        raise ShapeError(
            f"{where} holds {found}: expected an array 'responses' (n_trials, n_voxels), or one (n_voxels,) per trial"
        )
    return [_floating(arrays[name], f"{name} in {where}") for name in sorted(arrays, key=natural)]


def _matrix(array: Any, where: str) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        shape = getattr(array, "shape", None)
        raise ShapeError(f"the responses in {where} have shape {shape}: expected (n_trials, n_voxels)")
    return _floating(array, where)


def _floating(array: NDArray[Any], where: str) -> NDArray[Any]:
    if array.dtype.kind != "f":
        raise ShapeError(f"the responses in {where} are {array.dtype}: expected float32, convert them first")
    return array


def _hash(rows: Rows) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.shape}{row.dtype.str}".encode())
        digest.update(np.ascontiguousarray(row).tobytes())
    return digest.hexdigest()
