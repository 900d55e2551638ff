"""A simulated EEG subject in the files of THINGS-EEG2: raw recordings, both kinds of prepared epochs, pictures.

Raw_data/sub-01/ses-01/raw_eeg_training.npy and raw_eeg_test.npy (dictionaries by numpy.save); Preprocessed_data/sub-01
as of Gifford et al. (numpy.save, posterior channels, 100 Hz) and Preprocessed_data_250Hz/sub-01 as of NICE (pickle, all
channels, 250 Hz, `times` of 300); image_set. Epochs are made by this project's filters and whitened by session on
training trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.signal.chain import Chain, open_chain
from ....runtime.signal.published import WINDOWS, eeg2_chain, posterior
from ....runtime.signal.whitening import fit_whitening
from ..base import TARGET, OnProgress, Run, SensorSubject
from .dictionaries import Later, write_dictionary
from .things_pictures import named, write_jpegs

TARGET_CODE = 99999
FILES = {"train": "training", "test": "test"}
_SUBJECT = "sub-01"
# Folder, form of the files, window.
_PREPARED = (("Preprocessed_data", "np.save", "gifford"), ("Preprocessed_data_250Hz", "pickle", "nice"))
_NICE_TIMES = (-0.2, 0.996, 300)


def write(out: Path, subject: SensorSubject, *, progress: OnProgress) -> None:
    """Write a simulated EEG subject; see the formats' registry."""
    codes = {split: _write_pictures(out / "image_set", subject, split) for split in FILES}
    _write_metadata(out / "image_set", subject)
    prepared = [_Prepared(out / folder / _SUBJECT, form, window, subject, codes) for folder, form, window in _PREPARED]
    done = 0
    progress("recording", done, subject.n_runs)
    for session, runs in groupby(subject.runs(), key=lambda run: run.session):
        joined = {}
        for split, some in _by_split(runs):
            joined[split] = _join(some, codes[split])
            done += len(some)
            progress("recording", done, subject.n_runs)
            folder = out / "Raw_data" / _SUBJECT / f"ses-{session + 1:02d}"
            _write_raw(folder / f"raw_eeg_{FILES[split]}.npy", joined[split], subject)
        for one in prepared:
            one.add(joined)


def conditions(subject: SensorSubject, split: str) -> list[int]:
    """The condition of each picture, counted from 0: pictures in the order of their concepts' folders and files."""
    names = named(subject.pictures[split])
    order = sorted(range(len(names)), key=lambda index: names[index])
    ranks = [0] * len(names)
    for rank, index in enumerate(order):
        ranks[index] = rank
    return ranks


def _folders(subject: SensorSubject, split: str) -> list[tuple[str, str]]:
    """Folder and file of each picture."""
    names = named(subject.pictures[split])
    numbers = {concept: number for number, concept in enumerate(sorted({concept for concept, _file in names}), 1)}
    return [(f"{numbers[concept]:05d}_{concept}", file) for concept, file in names]


def _write_pictures(root: Path, subject: SensorSubject, split: str) -> NDArray[np.int64]:
    """Write them; returns the code of each picture, its condition from 1."""
    place = root / f"{FILES[split]}_images"
    write_jpegs(subject.pictures[split].images, [place / folder / file for folder, file in _folders(subject, split)])
    return np.array(conditions(subject, split), np.int64) + 1


def _write_metadata(root: Path, subject: SensorSubject) -> None:
    content: dict[str, list[str]] = {}
    for split in FILES:
        listed = sorted(_folders(subject, split))
        content[f"{split}_img_concepts"] = [folder for folder, _file in listed]
        content[f"{split}_img_concepts_THINGS"] = [folder for folder, _file in listed]
        content[f"{split}_img_files"] = [file for _folder, file in listed]
    write_dictionary(root / "image_metadata.npy", content, "np.save")


def _by_split(runs: Iterator[Run]) -> Iterator[tuple[str, list[Run]]]:
    for split, some in groupby(runs, key=lambda run: run.split):
        yield split, list(some)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Joined:
    """The runs of a session end to end, as the authors join their parts: data, samples and codes of the pictures."""

    data: NDArray[np.float64]
    samples: NDArray[np.int64]
    codes: NDArray[np.int64]


def _join(runs: list[Run], codes: NDArray[np.int64]) -> _Joined:
    starts = np.cumsum([0, *(run.data.shape[1] for run in runs)])
    events = [
        (start + event.sample, TARGET_CODE if event.split == TARGET else int(codes[event.stimulus]))
        for start, run in zip(starts, runs, strict=False)
        for event in run.events
    ]
    samples, values = np.array(events, np.int64).reshape(-1, 2).T
    return _Joined(data=np.concatenate([run.data for run in runs], axis=1), samples=samples, codes=values)


def _write_raw(path: Path, joined: _Joined, subject: SensorSubject) -> None:
    n_channels, n_samples = joined.data.shape
    content = {
        "raw_eeg_data": Later((n_channels + 1, n_samples)),
        "ch_names": [*(channel.name for channel in subject.channels), "stim"],
        "ch_types": ["eeg"] * n_channels + ["stim"],
        "sfreq": round(subject.sfreq),
        "highpass": 0.01,
        "lowpass": 100.0,
    }
    raw = write_dictionary(path, content, "np.save")["raw_eeg_data"]
    raw[:-1] = joined.data
    raw[-1, joined.samples] = joined.codes
    raw.flush()  # type: ignore[attr-defined]


@dataclass(eq=False)
class _Prepared:
    """One kind of prepared epochs, whose files are filled session by session."""

    folder: Path
    form: str
    window: str
    subject: SensorSubject
    codes: dict[str, NDArray[np.int64]]
    _files: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    _shown: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [channel.name for channel in self.subject.channels]
        wanted = names if self.window == "nice" else posterior(names)
        self._rows = [names.index(name) for name in wanted]
        self._signal = eeg2_chain(self.window, self.subject.sfreq, causal=False)
        first, _last, sfreq = WINDOWS[self.window]
        n_times = self._chain().output.n_times
        times = first + np.arange(n_times) / sfreq if self.window == "gifford" else np.linspace(*_NICE_TIMES)
        for split, name in FILES.items():
            shape = (len(self.codes[split]), self.subject.n_repetitions[split], len(wanted), n_times)
            content: dict[str, Any] = {"preprocessed_eeg_data": Later(shape), "ch_names": wanted, "times": times}
            made = write_dictionary(self.folder / f"preprocessed_eeg_{name}.npy", content, self.form)
            self._files[split] = made["preprocessed_eeg_data"]
            self._shown[split] = np.zeros(len(self.codes[split]), np.int64)

    def _chain(self) -> Chain:
        return open_chain(self._signal, [self.subject.channels[row] for row in self._rows], self.subject.sfreq)

    def add(self, session: dict[str, _Joined]) -> None:
        """The epochs of one session, whitened by its training trials where it has any."""
        matrix = np.eye(len(self._rows))
        chain = self._chain()
        for split in (split for split in FILES if split in session):
            joined = session[split]
            pictures = joined.codes != TARGET_CODE
            epochs = chain.epochs(joined.data[self._rows], joined.samples[pictures])
            condition = joined.codes[pictures][epochs.kept] - 1
            if split == "train":
                matrix = fit_whitening(epochs.data, condition)
            for epoch, place in zip(epochs.data, condition, strict=True):
                self._files[split][place, self._shown[split][place]] = matrix @ epoch.astype(np.float64)
                self._shown[split][place] += 1
            self._files[split].flush()  # type: ignore[attr-defined]
