"""What a person gives to be reconstructed: a data folder's test split, or an array file."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data.trial_ids import check_trial_ids, folder_trial_ids, ids_worth_showing, read_trial_ids, row_ids
from .errors import FileError, InputError, ShapeError
from .files import check_format, natural, read_json, read_tensors
from .images import fit_square, list_pictures, read_image
from .rois import stored_rois
from .screen import Rows

DATA_VERSION = 1
ARRAY_SUFFIXES = (".safetensors", ".npz", ".npy")
_KEY = "responses"


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """The trials to reconstruct.

    Attributes
    ----------
    rows
        One array per trial, as they were given; :func:`~minddiffuser.runtime.screen.screen` says which are good.
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
    trial_ids
        One text per trial, all different, which decides the trial's noise; the rows ("0", "1", …) where none is given.
    rois
        Name to (start, stop) in the voxel axis; known for data folders only.
    """

    rows: Rows
    hash: str
    subject: str | None = None
    pictures: tuple[Path, ...] | None = None
    captions: tuple[tuple[str, ...], ...] = ()
    simulated: bool = False
    trial_ids: tuple[str, ...] = ()
    rois: Mapping[str, tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        if not self.trial_ids:
            object.__setattr__(self, "trial_ids", row_ids(len(self.rows)))

    @property
    def named(self) -> dict[int, str]:
        """Trial to id; empty where the ids are just the rows."""
        return ids_worth_showing(self.trial_ids)


def open_responses(path: Path | str) -> Responses:
    """Read responses.

    Parameters
    ----------
    path
        A data folder (its test split, stimuli and captions); or a .npy file (n_trials, n_voxels); or a .npz or
        .safetensors file that holds such an array under "responses", or one (n_voxels,) array per trial, taken in
        the order of their names (2 before 10), which are the trials' ids then.

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
    ids: tuple[str, ...] = ()
    if path.suffix == ".npy":
        rows = _matrix(_load_numpy(path), str(path))
    elif path.suffix in (".npz", ".safetensors"):
        rows, ids = _rows(_archive(path), str(path))
    else:
        raise FileError(
            f"the responses {path} end in {path.suffix!r}: give a data folder or a {', '.join(ARRAY_SUFFIXES)} file"
        )
    return Responses(rows=rows, hash=_hash(rows), trial_ids=ids)


def with_trial_ids(responses: Responses, path: Path | str) -> Responses:
    """The same trials under the ids of a person's list; see :func:`~.data.trial_ids.read_trial_ids`."""
    return replace(responses, trial_ids=read_trial_ids(Path(path), len(responses.rows)))


def with_pictures(responses: Responses, folder: Path | str) -> Responses:
    """The same trials with a person's own pictures as what was seen.

    Where the trials have ids and the pictures are named by them (``cat-03.png`` for the trial "cat-03"), each trial
    gets its own; else they are taken in the order of their names.

    Raises
    ------
    FileError
        The folder is missing or holds no picture.
    InputError
        There are not as many pictures as trials, or some are named by a trial's id and others are not.
    """
    pictures = list_pictures(folder)
    if len(pictures) != len(responses.rows):
        raise InputError(
            f"{folder} holds {len(pictures)} pictures and there are {len(responses.rows)} trials: "
            "give one picture per trial, named in the trials' order"
        )
    return replace(responses, pictures=_in_order_of(responses, pictures, folder), captions=())


def _in_order_of(responses: Responses, pictures: Sequence[Path], folder: Path | str) -> tuple[Path, ...]:
    """The pictures by the trials' ids, or in the order that they come in."""
    by_name = {path.stem: path for path in pictures}
    named = [name for name in responses.named.values() if name in by_name]
    if not named:
        return tuple(pictures)
    strangers = sorted(by_name.keys() - set(responses.trial_ids), key=natural)
    if len(named) < len(pictures):
        told = strangers[0] if strangers else "two have one name"
        raise InputError(
            f"{len(named)} of the {len(pictures)} pictures in {folder} are named by a trial's id and the others are "
            f"not ({told}): name each by its trial's id, or none"
        )
    return tuple(by_name[name] for name in responses.trial_ids)


def seen(pictures: Sequence[Path], size: int) -> NDArray[np.uint8]:
    """The pictures as squares of `size` px, (n, size, size, 3) uint8.

    Raises
    ------
    FileError
        A picture cannot be decoded.
    """
    return np.stack([fit_square(read_image(path), size) for path in pictures])


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
        trial_ids=folder_trial_ids(folder, "test", stimulus),
        rois=stored_rois(content.get("rois"), rows.shape[1], str(folder / "data.json")),
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


def _rows(arrays: dict[str, NDArray[Any]], where: str) -> tuple[Rows, tuple[str, ...]]:
    """The trials, and their ids where each is an array of its own."""
    if _KEY in arrays:
        return _matrix(arrays[_KEY], where), ()
    if not arrays or any(array.ndim != 1 for array in arrays.values()):
        found = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items())[:4]) or "nothing"
        raise ShapeError(
            f"{where} holds {found}: expected an array 'responses' (n_trials, n_voxels), or one (n_voxels,) per trial"
        )
    names = sorted(arrays, key=natural)
    return [_floating(arrays[name], f"{name} in {where}") for name in names], check_trial_ids(names, len(names), where)


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
