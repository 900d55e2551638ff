"""A simulated MEG subject in the files of THINGS-MEG: raw runs, the prepared epochs, the list of trials, pictures.

sub-BIGMEG1/ses-01/meg/sub-BIGMEG1_ses-01_task-main_run-01_meg.fif with triggers on UPPT001 (the original is a CTF
folder, which nothing but the scanner's software writes), derivatives/preprocessed/preprocessed_P1-epo.fif,
sourcedata/sample_attributes_P1.csv, images_meg and images_test_meg. A test concept that training has too is named as
THINGS names homonyms, with a number ("rabbit2"): the data set's split has no concept on both sides.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.signal.chain import Chain, open_chain
from ....runtime.signal.published import meg_chain
from ..base import TARGET, Event, OnProgress, Run, SensorSubject
from ..sensors import meg_sensors, mne_library
from .things_pictures import named, write_jpegs

COLUMNS = (
    "trial_type,image_nr,category_nr,exemplar_nr,test_image_nr,things_category_nr,things_image_nr,things_exemplar_nr,"
    "image_path,onset,image_on,image_off,responded,key_id,key_time,RT,session_nr,run_nr"
).split(",")
_EPOCH = (-0.1, 1.3)
TRIGGERS, SHOWN, _END = "UPPT001", 64, 32
CATCH_CODE = 999999
# By which the times of the presenting program are late.
_LATE_S = 0.15
_SHOWN_S = 0.5
_TYPES = {"train": "exp", "test": "test", TARGET: "catch"}


def write(out: Path, subject: SensorSubject, *, progress: OnProgress) -> None:
    """Write a simulated MEG subject; see the formats' registry."""
    pictures = _Pictures.of(subject)
    for split, paths in pictures.paths.items():
        write_jpegs(subject.pictures[split].images, [out / path for path in paths])
    rows: list[dict[str, Any]] = []
    epochs: list[NDArray[np.float32]] = []
    chain = None
    progress("recording", 0, subject.n_runs)
    for done, (run, number) in enumerate(_numbered(subject.runs()), 1):
        chain = chain or _chain(run)
        made = chain.epochs(run.data, np.array([event.sample for event in run.events], np.int64))
        epochs.append(made.data)
        kept = [run.events[index] for index in made.kept]
        listed = [pictures.row(event, run, number) for event in kept]
        rows += listed
        _write_run(out / "sub-BIGMEG1", run, number, kept, listed)
        progress("recording", done, subject.n_runs)
    _write_table(out / "sourcedata" / "sample_attributes_P1.csv", rows)
    _write_epochs(out / "derivatives" / "preprocessed" / "preprocessed_P1-epo.fif", epochs, rows, chain)


def _numbered(runs: Iterator[Run]) -> Iterator[tuple[Run, int]]:
    """Runs with their number in the session, from 1."""
    counts: dict[int, int] = {}
    for run in runs:
        counts[run.session] = counts.get(run.session, 0) + 1
        yield run, counts[run.session]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pictures:
    """Where each picture lies, and THINGS' numbers of it: category, exemplar, picture, from 1."""

    paths: dict[str, list[str]]
    numbers: dict[str, list[tuple[int, int, int]]]

    @staticmethod
    def of(subject: SensorSubject) -> _Pictures:
        train, test = (named(subject.pictures[split]) for split in ("train", "test"))
        trained = {concept for concept, _file in train}
        test = [(c + "2", f"{c}2{file.removeprefix(c)}") if c in trained else (c, file) for c, file in test]
        concepts = sorted({concept for concept, _file in (*train, *test)})
        files = sorted({file for _concept, file in (*train, *test)})
        numbers = {
            split: [(concepts.index(c) + 1, int(file[-7:-5]), files.index(file) + 1) for c, file in names]
            for split, names in (("train", train), ("test", test))
        }
        paths = {
            "train": [f"images_meg/{concept}/{file}" for concept, file in train],
            "test": [f"images_test_meg/{file}" for _concept, file in test],
        }
        return _Pictures(paths=paths, numbers=numbers)

    def row(self, event: Event, run: Run, number: int) -> dict[str, Any]:
        """The trial as the table lists it."""
        late = round(event.sample / run.sfreq + _LATE_S, 4)
        row: dict[str, Any] = {
            "trial_type": _TYPES[event.split],
            "onset": late,
            "image_on": late,
            "image_off": round(late + _SHOWN_S, 4),
            "responded": int(event.split == TARGET),
            "session_nr": run.session + 1,
            "run_nr": number,
        }
        if event.split == TARGET:
            return {**row, "image_path": "images_catch_meg/catch001.jpg"}
        category, exemplar, picture = self.numbers[event.split][event.stimulus]
        numbers = {"category_nr": category, "exemplar_nr": exemplar, "image_nr": picture}
        things = {f"things_{name}": value for name, value in numbers.items()}
        tested = {"test_image_nr": event.stimulus + 1} if event.split == "test" else {}
        return {**row, **numbers, **things, **tested, "image_path": self.paths[event.split][event.stimulus]}


def _chain(run: Run) -> Chain:
    """As the prepared epochs were made, from -0.1 to 1.3 s."""
    return open_chain(meg_chain(run.sfreq, causal=False, epoch=_EPOCH, kept=None), run.channels, run.sfreq)


def _write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, restval="")
        table.writeheader()
        table.writerows(rows)


def _info(channels: Any, sfreq: float) -> Any:
    mne = mne_library()
    info = meg_sensors().info.copy()
    names = [channel.name for channel in channels]
    info = mne.pick_info(info, [info["ch_names"].index(name) for name in names])
    with info._unlock():
        info["sfreq"] = sfreq
    return info


def _write_run(folder: Path, run: Run, number: int, shown: list[Event], rows: list[dict[str, Any]]) -> None:
    mne = mne_library()
    info = _info(run.channels, run.sfreq)
    triggers = np.zeros((1, run.data.shape[1]))
    for event in shown:
        triggers[0, event.sample] = SHOWN
    triggers[0, -1] = _END
    raw = mne.io.RawArray(run.data, info, verbose="error")
    stim = mne.io.RawArray(triggers, mne.create_info([TRIGGERS], run.sfreq, "stim"), verbose="error")
    raw.add_channels([stim], force_update_info=True)
    place = folder / f"ses-{run.session + 1:02d}" / "meg"
    place.mkdir(parents=True, exist_ok=True)
    name = f"sub-BIGMEG1_ses-{run.session + 1:02d}_task-main_run-{number:02d}"
    raw.save(place / f"{name}_meg.fif", fmt="single", verbose="error")
    with open(place / f"{name}_events.tsv", "w", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["onset", "duration", "sample", "value"])
        for row in rows:
            late = row["image_on"]
            table.writerow([late, _SHOWN_S, round(late * run.sfreq), row.get("things_image_nr", "n/a")])


def _write_epochs(path: Path, epochs: list[NDArray[np.float32]], rows: list[dict[str, Any]], chain: Any) -> None:
    mne = mne_library()
    path.parent.mkdir(parents=True, exist_ok=True)
    output = chain.output
    codes = [int(row.get("things_image_nr", CATCH_CODE)) for row in rows]
    events = np.column_stack([np.arange(len(rows)) * 1000, np.zeros(len(rows), int), codes])
    data = np.concatenate(epochs).astype(np.float64)
    made = mne.EpochsArray(
        data, _info(output.channels, output.sfreq), events, tmin=output.tmin, metadata=_metadata(rows), verbose="error"
    )
    made.save(path, fmt="single", verbose="error")


def _metadata(rows: list[dict[str, Any]]) -> Any:
    """As MNE keeps it: a table of pandas where that is installed, else a list of dictionaries."""
    full = [{column: row.get(column, float("nan")) for column in COLUMNS} for row in rows]
    try:
        import pandas as pd  # type: ignore[import-untyped,unused-ignore]
    except ModuleNotFoundError:
        return full
    return pd.DataFrame(full)
