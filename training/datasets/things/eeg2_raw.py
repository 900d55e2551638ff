"""The raw recordings of THINGS-EEG2: sub-01/ses-01/raw_eeg_training.npy and raw_eeg_test.npy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import FileError, shown
from ..restricted import Published, read_published
from .mne_library import cap
from .recorded import Recording

FILES = {"train": "raw_eeg_training.npy", "test": "raw_eeg_test.npy"}
TARGET = 99999
TARGETS = "target that the subject answered with a key"
_DATA = "raw_eeg_data"
_KEYS = (_DATA, "ch_names", "ch_types", "sfreq")


def open_raw_dictionary(path: Path, session: int, split: str, first: int, n_pictures: int) -> Recording:
    """One recording; its samples stay in the file.

    Parameters
    ----------
    path
        A file of `FILES`.
    session, split
        From where in the data set, from 1.
    first, n_pictures
        The number of the split's first picture among the reader's, and how many there are.

    Raises
    ------
    FileError
        The file is none of these, or names pictures that are not there.
    """
    what = f"the {split} recording of session {session}"
    published = read_published(path, what)
    data, names, types, sfreq = _contents(published, what)
    stim = [row for row, kind in enumerate(types) if kind == "stim"]
    if len(stim) != 1:
        raise FileError(
            f"{what} at {path} has {len(stim)} channels of type stim: expected one, which says when pictures appeared"
        )
    events, codes = onsets(data[stim[0]])
    eeg = [row for row, kind in enumerate(types) if kind == "eeg"]
    pictures, events, dropped = shown_pictures(codes, events, first, n_pictures, f"{what} at {path}")

    def load(rows: Any, start: int, stop: int) -> NDArray[np.float64]:
        return np.stack([np.asarray(data[eeg[row], start:stop], np.float64) for row in rows])

    return Recording(
        name=f"session{session:02d}-{split}",
        files=(path,),
        channels=cap(tuple(names[row] for row in eeg)),
        sfreq=sfreq,
        n_samples=data.shape[1],
        events=events,
        pictures=pictures,
        load=load,
        dropped=dropped,
    )


def _contents(published: Published, what: str) -> tuple[NDArray[Any], list[str], list[str], float]:
    content, path = published.content, published.path
    missing = [key for key in _KEYS if key not in content]
    if missing:
        looks = ""
        if "preprocessed_eeg_data" in content:
            looks = "; it looks like epochs that were made already, give their folder with --form epochs"
        raise FileError(
            f"{what} at {path} has no {missing[0]} (it has {', '.join(map(str, content)) or 'nothing'}): expected "
            "a raw "
            f"recording{looks}"
        )
    data, names, types = content[_DATA], texts(content["ch_names"]), texts(content["ch_types"])
    sfreq = content["sfreq"]
    if not isinstance(sfreq, int | float | np.number) or not 0 < float(sfreq) < 1e6:
        raise FileError(f"{what} at {path} has sfreq {shown(sfreq)}: expected samples per second, 1000")
    good = isinstance(data, np.ndarray) and data.ndim == 2 and data.dtype.kind in "iuf"
    if not good or names is None or types is None or not len(names) == len(types) == data.shape[0]:
        shape = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else shown(data)
        counts = f"{len(names or ())} names and {len(types or ())} types of channels"
        looks = ""
        if good and names is not None and data.shape[1] == len(names):
            looks = " (is it transposed?)"
        raise FileError(
            f"{what} at {path} has {_DATA} {shape} and {counts}: expected (channels, samples) with a name and a type "
            f"for each channel{looks}"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise FileError(f"{what} at {path} names channel {shown(twice)} twice: copy the file again")
    return data, names, types, float(sfreq)


def texts(given: Any) -> list[str] | None:
    """A list or array of texts as a list; None where it is anything else."""
    values = given.reshape(-1).tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        return None
    return [str(value) for value in values]


def onsets(stim: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where a stimulus channel rises, and to what; as mne.find_events.

    Parameters
    ----------
    stim
        (n_samples,) of whole numbers, 0 where nothing happens.

    Returns
    -------
    tuple
        Samples and codes, (n_events,) int64 each. A value that the recording begins with is no event.
    """
    values = np.asarray(stim).astype(np.int64)
    places = np.flatnonzero(values[1:] > values[:-1]) + 1
    return places, values[places]


def shown_pictures(
    codes: NDArray[np.int64], events: NDArray[np.int64], first: int, n_pictures: int, what: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], Mapping[str, int]]:
    """The pictures that codes from 1 name, the events that showed any, and how many did not.

    Raises
    ------
    FileError
        There is no event, or a code names a picture that is not there.
    """
    target = codes == TARGET
    strange = codes[~target & ((codes < 1) | (codes > n_pictures))]
    if len(strange):
        raise FileError(
            f"{what} showed picture {strange[0]}, and the picture set has {n_pictures} of this split, counted from 1: "
            "give the picture set of THINGS-EEG2 with --images, and the recording of this split"
        )
    if target.all():
        raise FileError(f"{what} showed no picture (its stimulus channel has {len(codes)} events): copy it again")
    dropped = {TARGETS: int(target.sum())} if target.any() else {}
    return codes[~target] - 1 + first, events[~target], dropped
