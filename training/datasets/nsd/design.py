"""Which picture each trial of NSD showed: nsd_expdesign.mat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import FileError
from ..foreign import looks_like

_EXPECTED = "NSD's nsd_expdesign.mat with masterordering, subjectim and sharedix"


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """One subject's trials.

    Attributes
    ----------
    order : (n_trials,), which of the subject's own pictures each trial of all sessions shows, from 0.
    pictures : (n_pictures,), the number of each of these among all stimuli (0 to 72,999, "73k id"), from 0.
    n_shared : the first so many are those that every subject saw, the test split.
    """

    order: NDArray[np.int64]
    pictures: NDArray[np.int64]
    n_shared: int


def read_design(path: Path, subject: int) -> Design:
    """Read a subject's part of the experimental design.

    Parameters
    ----------
    path : of nsd_expdesign.mat, whose numbers count from 1.
    subject : from 1.

    Raises
    ------
    FileError
        It is another file, has no such subject, or its numbers count from 0 or contradict each other.
    """
    arrays = _read(path)
    order, subjects, shared = (arrays[name] for name in ("masterordering", "subjectim", "sharedix"))
    order, shared = order.reshape(-1), shared.reshape(-1)
    if subjects.ndim != 2 or not 1 <= subject <= len(subjects):
        raise FileError(f"{path} has subjects 1 to {len(subjects)}, and --subject is {subject}: give one of these")
    pictures = subjects[subject - 1]
    for name, numbers, last in (("masterordering", order, len(pictures)), ("subjectim", pictures, None)):
        if numbers.min() < 1 or (last is not None and numbers.max() > last):
            counts = "they seem to count from 0, add 1" if numbers.min() == 0 else "copy NSD's own file again"
            raise FileError(
                f"{name} in {path} runs from {numbers.min()} to {numbers.max()}, expected 1 to "
                f"{last or 73000}: {counts}"
            )
    if len(np.unique(pictures)) < len(pictures):
        raise FileError(f"subjectim in {path} names a picture twice for subject {subject}: copy NSD's own file again")
    n_shared = len(shared)
    first = np.sort(pictures[:n_shared])
    if not np.array_equal(first, np.sort(shared)):
        off = next((step for step in (-1, 1) if np.array_equal(first + step, np.sort(shared))), None)
        why = (
            "one of the two counts from 0"
            if off is not None
            else f"it is the design of another release or data set, {n_shared} pictures should be shared"
        )
        raise FileError(
            f"the first {n_shared} pictures of subject {subject} in {path} are not those of sharedix: {why}, copy "
            "NSD's own file again"
        )
    return Design(order=order - 1, pictures=pictures - 1, n_shared=n_shared)


def _read(path: Path) -> dict[str, NDArray[np.int64]]:
    from scipy.io import loadmat

    names = ("masterordering", "subjectim", "sharedix")
    try:
        content: dict[str, Any] = loadmat(path, variable_names=names)
    except Exception as error:  # scipy raises a dozen types for damaged and foreign files
        raise FileError(f"{path} is {looks_like(path)}, expected {_EXPECTED}: copy it again") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise FileError(f"{path} has no {missing[0]}, expected {_EXPECTED}: copy it again")
    arrays = {}
    for name in names:
        array = np.asarray(content[name])
        if array.dtype.kind not in "iuf" or array.size == 0 or (array != np.floor(array)).any():
            raise FileError(f"{name} in {path} is {array.dtype} {array.shape}, expected whole numbers: copy it again")
        arrays[name] = array.astype(np.int64)
    return arrays
