"""Epochs of THINGS-EEG2 that others made: preprocessed_eeg_training.npy and preprocessed_eeg_test.npy.

Two kinds share these names. Gifford et al. save a dictionary with numpy.save: 17 channels, 100 samples at 100 Hz from
-0.2 s. NICE (and ATM) pickle it: 63 channels, 250 samples at 250 Hz from 0 s, while `times` still has the 300 entries
from before the first 50 samples were cut off. Both hold (pictures, repetitions, channels, samples) in float64, whitened
by session, and both are mapped, not read: a slice at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.layout import ResponseLayout
from ....runtime.errors import FileError, shown
from ..reader import Block, Finished, Piece, Trials
from ..restricted import Published, read_published
from . import names, units
from .eeg2_images import PictureSet
from .eeg2_raw import texts
from .mne_library import cap

FILES = {"train": "preprocessed_eeg_training.npy", "test": "preprocessed_eeg_test.npy"}
_DATA = "preprocessed_eeg_data"
_KEYS = (_DATA, "ch_names", "times")
# Bytes that reading a value takes: float64 as it lies, and float32.
_BYTES = 12
_LOOKED_AT = 40  # pictures from which the unit is recognised
_WHITENED = {
    "np.save": "the epochs were whitened by session by their authors, with the test trials among what the "
    "whitening was "
    "fitted on (eeg_encoding's mvnn): to be free of that, prepare the raw recordings",
    "pickle": "the epochs were whitened by session by their authors (NICE's code fits on the training trials)",
}


class _Split:
    """One file: its array, channels and times, checked."""

    def __init__(self, path: Path, split: str) -> None:
        self.what = f"the {split} epochs"
        self.published: Published = read_published(path, f"the file of the {split} epochs")
        content = self.published.content
        missing = [key for key in _KEYS if key not in content]
        if missing:
            looks = ""
            if "raw_eeg_data" in content:
                looks = "; it looks like a raw recording, give its folder with --form raw"
            raise FileError(
                f"{self.what} at {path} have no {missing[0]} (the file has "
                f"{', '.join(map(str, content)) or 'nothing'}): "
                f"expected {FILES[split]} of Gifford et al. or of NICE{looks}"
            )
        self.data: NDArray[Any] = content[_DATA]
        names = texts(content["ch_names"])
        good = isinstance(self.data, np.ndarray) and self.data.ndim == 4 and self.data.dtype.kind == "f"
        if not good or names is None or len(names) != self.data.shape[2] or 0 in self.data.shape:
            shape = f"{self.data.dtype} {self.data.shape}" if hasattr(self.data, "dtype") else shown(self.data)
            raise FileError(
                f"{self.what} at {path} are {shape} with {len(names or ())} channel names: expected (pictures, "
                "repetitions, channels, samples) of floats with a name for each channel"
            )
        self.names: list[str] = names
        self.times = self._times(content["times"], path)

    def _times(self, given: Any, path: Path) -> NDArray[np.float64]:
        """Of the samples; the last ones of `times`, which NICE does not cut with its data."""
        times = given if isinstance(given, np.ndarray) else np.array(())
        n = self.data.shape[3]
        good = times.ndim == 1 and times.dtype.kind == "f" and len(times) >= n > 1
        steps = np.diff(times) if good else np.zeros(1)
        if not good or steps.min() <= 0 or not np.allclose(steps, steps.mean(), rtol=1e-3):
            raise FileError(
                f"times of {self.what} at {path} are {shown(given) if not good else 'not evenly spaced'}: expected one "
                f"time in seconds for each of the {n} samples"
            )
        self.n_cut = len(times) - n
        kept: NDArray[np.float64] = times[self.n_cut :]
        return kept

    @property
    def sfreq(self) -> float:
        return float(round((len(self.times) - 1) / (self.times[-1] - self.times[0]), 6))


class EpochsReader:
    """A subject of prepared epochs; a :class:`~..reader.Reader`.

    Parameters
    ----------
    subject
        A name.
    folder
        That holds both files.
    pictures
        The picture set; its numbers of pictures are those of the files.
    channels
        Names to keep, in their order, from those that the files have; None for all.
    memory
        In bytes.

    Raises
    ------
    FileError
        A file is missing, truncated or another one, or the two differ, or they and the pictures.
    """

    place = "channel"

    def __init__(self, subject: str, folder: Path, pictures: PictureSet, *, channels: str | None, memory: int) -> None:
        self.subject = subject
        self._splits = {split: _Split(folder / name, split) for split, name in FILES.items()}
        train, test = self._splits["train"], self._splits["test"]
        for what, a, b in (
            ("channels", train.names, test.names),
            ("samples", train.data.shape[3], test.data.shape[3]),
            ("times of the samples", np.round(train.times, 4).tolist(), np.round(test.times, 4).tolist()),
        ):
            if a != b:
                raise FileError(
                    f"{FILES['train']} and {FILES['test']} in {folder} have other {what} ({_few(a)} and {_few(b)}): "
                    "they were prepared in two ways, give both from one preparation"
                )
        for split, part in self._splits.items():
            if len(part.data) != len(pictures.paths[split]):
                raise FileError(
                    f"{part.what} at {part.published.path} are of {len(part.data)} pictures, and {pictures.root} holds "
                    f"{len(pictures.paths[split])} {split} pictures: give the picture set of THINGS-EEG2 with "
                    "--images, "
                    "and the file of this split"
                )
        self._rows = self._channels(channels)
        self._unit = self._checked_unit()
        self.pictures, self._first = pictures.shown()
        self.shape: tuple[int, ...] = (len(self._rows), train.data.shape[3])
        self._parts: dict[str, tuple[str, int, int]] = {}
        self.pieces: Sequence[Piece] = tuple(piece for split in FILES for piece in self._pieces(split, memory))
        self.files: Mapping[Path, str] = {
            **{part.published.path: f"{split} epochs" for split, part in self._splits.items()},
            **pictures.files,
        }
        self.settings: Mapping[str, Any] = {"form": "epochs", "channels": [train.names[row] for row in self._rows]}
        self.notes = (*self._findings(), pictures.note, names.NO_CAPTIONS)

    def _channels(self, channels: str | None) -> list[int]:
        names = self._splits["train"].names
        if channels == "posterior":
            return [row for row, name in enumerate(names) if name[:1] in ("O", "P")]
        if channels == "all" and all(name[:1] in ("O", "P") for name in names):
            raise FileError(
                f"{self._splits['train'].published.path} holds {len(names)} channels, the posterior ones: "
                "--channels all "
                "needs epochs of all 63 (those of NICE) or the raw recordings"
            )
        return list(range(len(names)))

    def _checked_unit(self) -> str:
        """The unit of both files; single trials in both, so that their spreads are alike."""
        found: dict[str, str] = {}
        for split in self._splits.values():
            some = np.asarray(split.data[:_LOOKED_AT, :, self._rows], np.float64)
            recorded = some[some.any(axis=(2, 3))]  # repetitions that were not recorded are zeros
            spread = units.spread(recorded.swapaxes(0, 1).reshape(some.shape[2], -1))
            unit = units.unit_of_epochs(spread, "V")
            if unit is None:
                raise FileError(f"the signal of {split.what} at {split.published.path} {units.wrong_unit(spread, 'V')}")
            found[f"{split.what} at {split.published.path}"] = unit
        (first, unit), (second, other) = found.items()
        if unit != other:
            raise FileError(
                f"{first} is in the unit {unit!r} and {second} in {other!r} (1: whitened): give two files of one "
                "preprocessing"
            )
        return unit

    def _pieces(self, split: str, memory: int) -> list[Piece]:
        data = self._splits[split].data
        n_repetitions = data.shape[1]
        most = max(1, memory // (_BYTES * n_repetitions * data.shape[2] * data.shape[3]))
        pieces = []
        for start in range(0, len(data), most):
            stop = min(start + most, len(data))
            name = f"{split}-pictures{start + 1:05d}-{stop:05d}"
            self._parts[name] = (split, start, stop)
            pieces.append(
                Piece(name=name, n_trials=(stop - start) * n_repetitions, files=(self._splits[split].published.path,))
            )
        return pieces

    def _findings(self) -> list[str]:
        train = self._splits["train"]
        form, times = train.published.form, train.times
        whose = {"np.save": "Gifford et al. (numpy.save)", "pickle": "NICE (pickle)"}[form]
        found = [
            f"epochs of the kind of {whose}, recognised by their content: {len(train.names)} channels, "
            f"{len(times)} samples, {times[0]:g} to {times[-1]:g} s at {train.sfreq:g} Hz"
        ]
        other = self._splits["test"].published.form
        if other != form:
            found.append(
                "the training file is of the one kind and the test file of the other; channels and times agree"
            )
        if train.n_cut:
            found.append(
                f"times has {train.n_cut} entries more than there are samples: the first {train.n_cut} are left out, "
                "as NICE cuts its data"
            )
        if self._unit == "1":
            found.append(_WHITENED[form])
        return found

    def read(self, piece: Piece) -> Block:
        """The repetitions of some pictures, picture by picture."""
        split, start, stop = self._parts[piece.name]
        part = self._splits[split].data[start:stop]
        part = part[:, :, self._rows] if len(self._rows) < part.shape[2] else part
        responses = np.ascontiguousarray(part, np.float32).reshape(-1, *self.shape)
        picture = np.repeat(np.arange(start, stop) + self._first[split], part.shape[1])
        empty = ~responses.any(axis=(1, 2))
        dropped = {"zeros in place of a repetition that was not recorded": int(empty.sum())} if empty.any() else {}
        return Block(responses=responses[~empty], picture=picture[~empty], dropped=dropped)

    def finish(self, trials: Trials, folder: Path) -> Finished:
        """The layout; the chain that made the epochs is not known sample by sample, so it is not stated."""
        train = self._splits["train"]
        layout = ResponseLayout(
            modality="eeg",
            shape=self.shape,
            channels=cap(tuple(train.names[row] for row in self._rows)),
            sfreq=train.sfreq,
            tmin=float(round(train.times[0], 6)),
            unit=self._unit,
        )
        return Finished(
            layout=layout, notes=("the chain that made the epochs is not stated in them: they cannot run live",)
        )


def _few(value: Any) -> str:
    return f"{len(value)} of them, from {value[0]} to {value[-1]}" if isinstance(value, list) else str(value)
