"""The raw recordings of THINGS-MEG (OpenNeuro ds004212), a CTF folder for each run.

sub-BIGMEG1/ses-01/meg/sub-BIGMEG1_ses-01_task-main_run-01_meg.ds, and a table sample_attributes_P1.csv of the trials.

When a picture appeared is in the trigger channel UPPT001; the times in the table of trials and in events.tsv come
from the presenting program and are late by some 150 ms. A run has a trigger of 64 for each trial, and one of 32 at its
end.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import FileError
from .eeg2_raw import onsets
from .meg_attributes import Showings, Trials
from .meg_epochs import meg_channel
from .mne_library import cannot_read, open_raw
from .recorded import Recording

TRIGGERS = "UPPT001"
SHOWN = 64
DEAD = "MRO11-1609"
SUFFIXES = (".ds", ".fif")
_NAME = re.compile(r"sub-\w+_ses-(\d+)_task-main_run-(\d+)_meg")
# Signal dropouts that the authors' code fills with each channel's median: subject, session, run -> seconds from.
DROPOUTS = {(1, 11, 4): 13.4, (2, 10, 2): 59.8}
_DROPOUT_S = 0.2


def runs_in(folder: Path) -> dict[tuple[int, int], Path]:
    """The runs of a subject's folder: (session, run) to recording, in their order."""
    found: dict[tuple[int, int], Path] = {}
    for path in sorted(folder.glob("ses-*/meg/*_meg.*")):
        match = _NAME.fullmatch(path.stem)
        if match is not None and path.suffix in SUFFIXES:
            found[int(match[1]), int(match[2])] = path
    return dict(sorted(found.items()))


def open_run(path: Path, subject: int, session: int, run: int, trials: Trials, shown: Showings) -> Recording:
    """One run.

    Raises
    ------
    FileError
        It is truncated, of another kind, or has another number of triggers than the table has trials of it.
    """
    what = f"run {run} of session {session}"
    raw = open_raw(path, what)
    if TRIGGERS not in raw.ch_names:
        raise FileError(f"{what} at {path} has no trigger channel {TRIGGERS}: give the CTF recording of THINGS-MEG")
    rows = np.flatnonzero((trials.sessions == session) & (trials.runs == run))
    places, values = onsets(np.round(_read(raw, [raw.ch_names.index(TRIGGERS)], 0, raw.n_times, what, path)[0]))
    places = places[values == SHOWN]
    if len(places) != len(rows):
        raise FileError(
            f"{what} at {path} has {len(places)} triggers of {SHOWN} on {TRIGGERS}, and {trials.path} lists "
            f"{len(rows)} "
            "trials of it: they are of different subjects, or the recording is truncated"
        )
    kinds = raw.get_channel_types()
    mags = [row for row, kind in enumerate(kinds) if kind == "mag" and raw.ch_names[row] != DEAD]
    sfreq = float(raw.info["sfreq"])
    lost = DROPOUTS.get((subject, session, run))

    def load(chosen: Any, start: int, stop: int) -> NDArray[np.float64]:
        data = _read(raw, [mags[row] for row in chosen], start, stop, what, path)
        if lost is not None and (start, stop) == (0, raw.n_times):
            first = round(lost * sfreq)
            data[:, first : first + int(_DROPOUT_S * sfreq)] = np.median(data, axis=1, keepdims=True)
        return data

    kept = shown.picture[rows] >= 0
    return Recording(
        name=f"session{session:02d}-run{run:02d}",
        files=(path,),
        channels=tuple(meg_channel(raw.info, row) for row in mags),
        sfreq=sfreq,
        n_samples=raw.n_times,
        events=places[kept],
        pictures=shown.picture[rows][kept],
        load=load,
        dropped=shown.dropped(rows),
    )


def _read(raw: Any, picks: list[int], start: int, stop: int, what: str, path: Path) -> NDArray[np.float64]:
    try:
        data: NDArray[np.float64] = raw.get_data(picks=picks, start=start, stop=stop)
    except Exception as error:  # of a file that ends too early, whatever its reader raises
        raise cannot_read(what, path, error) from error
    return data
