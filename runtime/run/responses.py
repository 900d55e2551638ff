"""The responses to reconstruct: a data folder's test split, or an array file."""

from __future__ import annotations

import hashlib
import re
import tokenize
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.folder import open_data
from ..data.layout import ResponseLayout
from ..data.recognise import NPY, SAFETENSORS, recognise
from ..data.references import Reference, read_picture
from ..data.simulated import simulated_brain
from ..data.stimuli import stimulus_ids
from ..data.trial_ids import check_trial_ids, ids_worth_showing, read_trial_ids, row_ids
from ..decoders.screen import Rows
from ..errors import FileError, InputError, ShapeError
from ..files import natural, read_tensors
from ..images import fit_square, list_pictures

ARRAY_SUFFIXES = (".safetensors", ".npz", ".npy")
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
        One array per trial, as they were given;
        :func:`~minddiffuser.runtime.decoders.screen.screen` says which are good.
    hash
        SHA-256 over the trials' shapes, dtypes and bytes.
    subject
        Known for data folders only.
    pictures
        The file of the picture that each trial showed, or where it lies elsewhere; None where it is not known.
    captions
        Per trial, captions of that picture; empty where there are none.
    concepts
        Per trial, what that picture is of; empty where it is not known.
    simulated
        Whether the data folder says that its subject was simulated.
    brain
        The kind of brain that a simulated subject has.
    trial_ids
        One text per trial, all different, which decides the trial's noise; the rows ("0", "1", …) where none is given.
    layout
        What one trial is: modality, shape, rois or channels, rate, signal chain; known for data folders only.
    warnings
        Sentences on how they were put together.
    """

    rows: Rows
    hash: str
    subject: str | None = None
    pictures: tuple[Path | Reference, ...] | None = None
    captions: tuple[tuple[str, ...], ...] = ()
    concepts: tuple[str, ...] = ()
    simulated: bool = False
    brain: str | None = None
    trial_ids: tuple[str, ...] = ()
    layout: ResponseLayout | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.trial_ids:
            object.__setattr__(self, "trial_ids", row_ids(len(self.rows)))

    @property
    def named(self) -> dict[int, str]:
        """Trial to id; empty where the ids are just the rows."""
        return ids_worth_showing(self.trial_ids)

    @cached_property
    def stimulus_ids(self) -> tuple[str, ...] | None:
        """One id per trial, the same for trials whose picture has the same content; None where pictures are unknown."""
        return None if self.pictures is None else stimulus_ids(self.pictures)


def open_responses(path: Path | str, *, stimuli_root: Path | str | None = None) -> Responses:
    """Read responses.

    Parameters
    ----------
    path
        A data folder (its test split, stimuli and captions); or a .npy file (n_trials, *response_shape); or a .npz or
        .safetensors file that holds such an array under "responses", or one array per trial, taken in the order of
        their names (2 before 10), which are the trials' ids then.
    stimuli_root
        Of a data folder that only names its pictures: the folder that holds them.

    Raises
    ------
    FileError
        Missing, damaged, or of another kind or version.
    ShapeError
        An array of another rank, or not floating point.
    """
    path = Path(path)
    if path.is_dir():
        return _data_folder(path, stimuli_root)
    if stimuli_root is not None:
        raise InputError(f"{path} names no pictures: --stimuli-root goes with a data folder, leave it out")
    if not path.exists():
        raise FileError(f"the responses {path} do not exist: give a data folder or a {', '.join(ARRAY_SUFFIXES)} file")
    rows, ids = _array_file(path)
    return Responses(rows=rows, hash=_hash(rows), trial_ids=ids)


def with_trial_ids(responses: Responses, path: Path | str) -> Responses:
    """The same trials with ids from a file of the user's; see :func:`~..data.trial_ids.read_trial_ids`."""
    return replace(responses, trial_ids=read_trial_ids(Path(path), len(responses.rows)))


def with_pictures(responses: Responses, folder: Path | str) -> Responses:
    """The same trials with the pictures of a folder as their stimuli.

    Where the trials have ids and the pictures are named by them (``cat-03.png`` for the trial "cat-03"), each trial
    gets its own. Names need not have the ids' capitals and leading zeros, and "-" or "_" stands for a "/". Pictures of
    other names are taken in the order of these, with a warning where the trials have ids.

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
    own = _by_ids(responses, pictures, folder) if responses.named else tuple(pictures)
    if own is not None:
        return replace(responses, pictures=own, captions=(), concepts=())
    note = (
        f"no picture in {folder} is named by a trial's id (such as {responses.trial_ids[0]!r}), so they are taken in "
        f"the order of their names: the first trial's is {pictures[0].name}"
    )
    warnings = (*responses.warnings, note)
    return replace(responses, pictures=tuple(pictures), captions=(), concepts=(), warnings=warnings)


def _by_ids(responses: Responses, pictures: Sequence[Path], folder: Path | str) -> tuple[Path, ...] | None:
    """The pictures by the trials' ids; None where none is named by one."""
    for spelt in (str, _alike):  # exact names first: two ids may differ in their capitals only
        by_name = {spelt(path.stem): path for path in pictures}
        ids = [spelt(name) for name in responses.trial_ids]
        found = by_name.keys() & set(ids)
        if len(found) == len(pictures):
            return tuple(by_name[name] for name in ids)
    if not found:
        return None
    strangers = sorted((path.stem for path in pictures if spelt(path.stem) not in found), key=natural)
    raise InputError(
        f"{len(found)} of the {len(pictures)} pictures in {folder} are named by a trial's id and the others are "
        f"not ({strangers[0] if strangers else 'two have one name'}): name each by its trial's id, or none"
    )


def _alike(name: str) -> str:
    """A name or id without the differences that do not matter: capitals, leading zeros, slashes."""
    plain = unicodedata.normalize("NFC", name).casefold().replace("/", "-").replace("_", "-")
    return re.sub(r"(?<!\d)0+(?=\d)", "", plain)


def read_stimuli(pictures: Sequence[Path | Reference], size: int) -> NDArray[np.uint8]:
    """The pictures as squares of `size` px, (n, size, size, 3) uint8.

    Raises
    ------
    FileError
        A picture cannot be decoded, or has other pixels than those that were named.
    """
    return np.stack([fit_square(read_picture(picture), size) for picture in pictures])


def _data_folder(folder: Path, stimuli_root: Path | str | None) -> Responses:
    data = open_data(folder, splits=("test",), stimuli_root=stimuli_root)
    rows, stimulus = data.responses("test"), data.stimulus("test").tolist()
    pictures, captions, concepts = data.pictures("test"), data.captions("test"), data.concepts("test")
    brain = simulated_brain(data.provenance)
    return Responses(
        rows=rows,
        hash=_hash(rows),
        subject=data.subject,
        pictures=tuple(pictures[index] for index in stimulus),
        captions=tuple(tuple(captions[index]) for index in stimulus) if captions else (),
        concepts=tuple(concepts[index] for index in stimulus) if concepts else (),
        simulated=brain is not None,
        brain=brain,
        trial_ids=data.trial_ids("test"),
        layout=data.layout,
    )


def _array_file(path: Path) -> tuple[Rows, tuple[str, ...]]:
    """Rows of an array file, whose suffix and contents must agree, and ids where it holds an array per trial."""
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
    return _rows(content, str(path)) if isinstance(content, dict) else (_matrix(content, str(path)), ())


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


def _rows(arrays: dict[str, NDArray[Any]], where: str) -> tuple[Rows, tuple[str, ...]]:
    """The trials, and their ids where each is an array of its own."""
    if _KEY in arrays:
        return _matrix(arrays[_KEY], where), ()
    ranks = {array.ndim for array in arrays.values()}
    if len(ranks) != 1 or not ranks <= {1, 2}:
        found = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items())[:4]) or "nothing"
        raise ShapeError(
            f"{where} holds {found}: expected an array 'responses' (n_trials, n_voxels), or one (n_voxels,) per trial; "
            "of EEG and MEG (n_channels, n_times) in place of (n_voxels,)"
        )
    names = sorted(arrays, key=natural)
    return [_floating(arrays[name], f"{name} in {where}") for name in names], check_trial_ids(names, len(names), where)


def _matrix(array: Any, where: str) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3):
        shape = getattr(array, "shape", None)
        raise ShapeError(
            f"the responses in {where} have shape {shape}: expected (n_trials, n_voxels), or of EEG and MEG (n_trials, "
            "n_channels, n_times)"
        )
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
