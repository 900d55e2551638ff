"""The BIDS form of THINGS-EEG2, NEMAR's nm000232: sub-01/ses-01/eeg/sub-01_ses-01_task-train_run-01_eeg.bdf.

Each recording has a table beside it, ..._events.tsv: `sample` (from 0) or `onset` (s), `trial_type` (image, or target
for the pictures that the subject answered) and `tot_img_number`, the condition, counted from 1 in each split.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import FileError, shown
from .eeg2_images import read_table
from .eeg2_raw import TARGET, shown_pictures
from .mne_library import cannot_read, cap, open_raw
from .recorded import Recording

SUFFIXES = (".bdf", ".edf", ".vhdr", ".set")
_NAME = re.compile(r"sub-(\w+)_ses-(\d+)_task-(train|test)(?:_run-(\d+))?_eeg")


def recordings_in(folder: Path) -> dict[tuple[int, str, int], Path]:
    """The recordings of a subject's folder: (session, split, run) to file, sorted; resting state is passed over.

    Raises
    ------
    FileError
        A run is missing between others.
    """
    found: dict[tuple[int, str, int], Path] = {}
    for path in sorted(folder.glob("ses-*/eeg/*_eeg.*")):
        match = _NAME.fullmatch(path.stem)
        if match is not None and path.suffix.lower() in SUFFIXES:
            found[int(match[2]), match[3], int(match[4] or 1)] = path
    most = {split: max((key[2] for key in found if key[1] == split), default=0) for split in ("train", "test")}
    for session in sorted({key[0] for key in found}):
        for split, n_runs in most.items():
            gap = next((run for run in range(1, n_runs + 1) if (session, split, run) not in found), None)
            if gap is not None:
                raise FileError(
                    f"run {gap} of task-{split} of session {session} is missing in {folder}, and other sessions have "
                    f"{n_runs}: copy it (sub-..._ses-{session:02d}_task-{split}_run-{gap:02d}_eeg and its events.tsv)"
                )
    return dict(sorted(found.items()))


def events_of(path: Path) -> Path:
    """The table of events beside a recording."""
    return path.with_name(path.stem.removesuffix("_eeg") + "_events.tsv")


def open_bids(path: Path, session: int, split: str, run: int, first: int, n_pictures: int) -> Recording:
    """One recording; arguments and errors as :func:`~.eeg2_raw.open_raw_dictionary`."""
    what = f"the {split} recording of session {session}, run {run},"
    table = events_of(path)
    raw = open_raw(path, what)
    sfreq = float(raw.info["sfreq"])
    events, codes = _events(table, sfreq, raw.n_times)
    eeg = [row for row, kind in enumerate(raw.get_channel_types()) if kind == "eeg"]
    pictures, events, dropped = shown_pictures(codes, events, first, n_pictures, f"{what} at {path}")

    def load(rows: Any, start: int, stop: int) -> NDArray[np.float64]:
        try:
            data: NDArray[np.float64] = raw.get_data(picks=[eeg[row] for row in rows], start=start, stop=stop)
        except Exception as error:  # of a file that ends too early, whatever its reader raises
            raise cannot_read(what, path, error) from error
        return data

    return Recording(
        name=f"session{session:02d}-{split}-run{run:02d}",
        files=(path, table),
        channels=cap(tuple(raw.ch_names[row] for row in eeg)),
        sfreq=sfreq,
        n_samples=raw.n_times,
        events=events,
        pictures=pictures,
        load=load,
        dropped=dropped,
    )


def _events(path: Path, sfreq: float, n_samples: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    what = "the table of events"
    rows = read_table(path, what, ("onset", "trial_type", "tot_img_number"))
    events, codes = [], []
    for number, row in enumerate(rows, start=2):
        kind, code = row["trial_type"], row["tot_img_number"]
        if kind not in ("image", "target"):
            continue
        try:
            sample = (
                int(row["sample"]) if row.get("sample") not in (None, "n/a") else round(float(row["onset"]) * sfreq)
            )
            codes.append(TARGET if kind == "target" else int(code))
        except ValueError:
            raise FileError(
                f"line {number} of {what} {path} has onset {shown(row['onset'])} and tot_img_number {shown(code)}: "
                "expected seconds and the picture's number from 1"
            ) from None
        if not 0 <= sample < n_samples:
            raise FileError(
                f"line {number} of {what} {path} is at sample {sample}, and the recording has {n_samples}: is it the "
                "table of another recording, or the recording truncated?"
            )
        events.append(sample)
    return np.array(events, np.int64), np.array(codes, np.int64)
