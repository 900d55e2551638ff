"""What a person gives to be reconstructed: a data folder's test split, or an array file; and which trials are good."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FileError, InputError, ShapeError
from .files import check_format, natural, read_json, read_tensors
from .images import fit_square, list_pictures, read_image
from .stimuli import stimulus_ids

Rows = NDArray[Any] | Sequence[NDArray[Any]]
DATA_VERSION = 1
ARRAY_SUFFIXES = (".safetensors", ".npz", ".npy")
# Beyond so many standard deviations of the training responses a trial is an artefact, and its picture noise or NaN.
MOST_SD = 1e6
_KEY = "responses"


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

    @cached_property
    def stimulus_ids(self) -> tuple[str, ...] | None:
        """One id per trial, the same for trials whose picture has the same content; None where pictures are unknown."""
        return None if self.pictures is None else stimulus_ids(self.pictures)


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
    rows: Rows
    if path.suffix == ".npy":
        rows = _matrix(_load_numpy(path), str(path))
    elif path.suffix in (".npz", ".safetensors"):
        rows = _rows(_archive(path), str(path))
    else:
        raise FileError(
            f"the responses {path} end in {path.suffix!r}: give a data folder or a {', '.join(ARRAY_SUFFIXES)} file"
        )
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
            "check how the responses were exported"
        )
    return responses, skipped


def _fault(
    row: NDArray[Any], n_voxels: int, scored: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> str | None:
    if len(row) != n_voxels:
        return f"it has {len(row)} voxels, expected {n_voxels}"
    with np.errstate(over="ignore"):
        narrow = row.astype(np.float32)
    n_bad = int(np.count_nonzero(~np.isfinite(narrow)))
    if n_bad:
        return f"{n_bad} of {n_voxels} values are NaN or infinite"
    if n_voxels > 1 and bool((narrow == narrow[0]).all()):
        return f"every voxel is {float(narrow[0]):g}"
    furthest = float(np.abs(scored(narrow[None])).max())
    if not furthest <= MOST_SD:  # NaN too
        return f"a voxel lies {furthest:.2g} standard deviations from training, expected at most {MOST_SD:.0g}"
    return None


def _data_folder(folder: Path) -> Responses:
    content = read_json(folder / "data.json", "the data folder's description")
    check_format(content, folder / "data.json", "data", DATA_VERSION)
    path = folder / "test.safetensors"
    tensors = read_tensors(path, "the test split")
    if _KEY not in tensors or "stimulus" not in tensors:
        raise FileError(f"{path} lacks 'responses' or 'stimulus': make the data folder again")
    rows = _matrix(tensors[_KEY], str(path))
    if content.get("n_voxels") not in (None, rows.shape[1]):
        raise FileError(
            f"{path} has {rows.shape[1]} voxels, data.json says {content['n_voxels']}: make the data folder again"
        )
    stimulus = tensors["stimulus"]
    if stimulus.shape != (len(rows),) or stimulus.dtype.kind not in "iu" or (stimulus < 0).any():
        raise FileError(f"{path} has stimulus {stimulus.shape} {stimulus.dtype}: expected one index per trial")
    pictures = tuple(folder / "stimuli" / "test" / f"{int(index):06d}.png" for index in stimulus)
    for picture in pictures:
        if not picture.is_file():
            raise FileError(f"the stimulus {picture} is missing: make the data folder again")
    provenance = content.get("provenance")
    return Responses(
        rows=rows,
        hash=_hash(rows),
        subject=str(content.get("subject")),
        pictures=pictures,
        captions=_captions(folder / "captions.json", [int(index) for index in stimulus]),
        simulated=isinstance(provenance, dict) and str(provenance.get("kind", "")).startswith("simulated"),
    )


def _captions(path: Path, stimuli: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    if not path.exists():
        return ()
    captions = read_json(path, "the captions").get("test")
    if not captions:
        return ()
    try:
        return tuple(tuple(str(caption) for caption in captions[stimulus]) for stimulus in stimuli)
    except (TypeError, IndexError, KeyError) as error:
        raise FileError(f"{path} lacks captions of some test stimuli ({error}): make the data folder again") from error


def _archive(path: Path) -> dict[str, NDArray[Any]]:
    if path.suffix == ".safetensors":
        return read_tensors(path, "the responses")
    archive = _load_numpy(path)
    if isinstance(archive, np.ndarray):
        raise FileError(f"{path} is a .npy file with another name: name it .npy")
    try:
        with archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise _unreadable(path, error) from error


def _load_numpy(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> FileError:
    return FileError(
        f"the responses {path} cannot be read ({error}): they are truncated, damaged or hold Python objects; "
        "save a plain float32 array again"
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
