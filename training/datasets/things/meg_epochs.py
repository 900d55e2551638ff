"""The published epochs of THINGS-MEG: preprocessed_P1-epo.fif, read some trials at a time.

271 magnetometers' names of the CTF 275, 0.1 to 40 Hz, -0.1 to 1.3 s at 200 Hz, z-scored by the time before the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.layout import Channel, ResponseLayout
from ....runtime.errors import FileError
from ..reader import Block, Finished, Piece, Shown
from ..reader import Trials as ReadTrials
from . import names, units
from .meg_attributes import Trials, check_codes, showings, trials_from
from .mne_library import cannot_read, mne_library

N_CHANNELS = 271
WINDOW = (0.0, 1.0)
# Bytes that a value of a trial takes: MNE reads all samples in float64.
_BYTES = 24
_LOOKED_AT = 24
WHAT = "the epochs"


class EpochsReader:
    """A subject's published epochs; a :class:`~..reader.Reader`.

    Parameters
    ----------
    subject
        A name.
    path
        preprocessed_P*-epo.fif; further parts of it (-epo-1.fif) are found by MNE.
    table
        The subject's trials, or None where the epochs carry them along.
    images
        The folder below which the pictures lie.
    memory
        In bytes.

    Raises
    ------
    FileError
        A file is missing, truncated or another one, or they do not belong together.
    """

    place = "channel"

    def __init__(self, subject: str, path: Path, table: Trials | None, images: Path, *, memory: int) -> None:
        self.subject, self._path = subject, path
        self._epochs = _open(path)
        carried = _carried(self._epochs, path)
        trials = _agreed(table, carried, path)
        if len(trials) != len(self._epochs):
            raise FileError(
                f"{WHAT} at {path} are {len(self._epochs)} trials, and {trials.path} lists {len(trials)}: they are of "
                "different subjects, or one is incomplete"
            )
        differing = check_codes(np.asarray(self._epochs.events[:, 2], np.int64), trials, path, WHAT)
        self._rows = [row for row, kind in enumerate(self._epochs.get_channel_types()) if kind == "mag"]
        if not self._rows:
            kinds = sorted(set(self._epochs.get_channel_types()))
            raise FileError(f"{WHAT} at {path} have no magnetometers (they have {', '.join(kinds)}): expected MEG")
        self._window = self._samples()
        self._unit = self._checked_unit()
        self._shown = showings(trials, images)
        self.pictures: Sequence[Shown] = self._shown.pictures
        self.shape: tuple[int, ...] = (len(self._rows), self._window.stop - self._window.start)
        self._parts: dict[str, NDArray[np.int64]] = {}
        self.pieces: Sequence[Piece] = tuple(self._pieces(trials, memory))
        parts = sorted(path.parent.glob(f"{path.stem}-[0-9]*.fif"))  # where MNE has split a large file
        own = dict.fromkeys([path, *parts], "epochs")
        self.files: Mapping[Path, str] = {**own, **({} if table is None else {table.path: "list of the trials"})}
        self.settings: Mapping[str, Any] = {"form": "epochs", "window": list(WINDOW)}
        few = len(self._rows) != N_CHANNELS
        self.notes = (
            f"{len(self._rows)} channels{f' (the published epochs have {N_CHANNELS})' if few else ''}, "
            f"{self.shape[1]} samples, {self._tmin:g} s on, at {self._sfreq:g} Hz, "
            + ("z-scored by their authors" if self._unit == "1" else "in T"),
            self._shown.note,
            names.NO_CAPTIONS,
            *([differing] if differing else []),
        )

    @property
    def _sfreq(self) -> float:
        return float(self._epochs.info["sfreq"])

    @property
    def _tmin(self) -> float:
        return float(round(self._epochs.times[self._window.start], 6))

    def _samples(self) -> slice:
        """From 0 to 1 s, both inclusive."""
        times = self._epochs.times
        half = 0.5 / self._sfreq
        inside = np.flatnonzero((times > WINDOW[0] - half) & (times < WINDOW[1] + half))
        if not len(inside) or times[0] > WINDOW[0] + half or times[-1] < WINDOW[1] - half:
            raise FileError(
                f"{WHAT} at {self._path} go from {times[0]:g} to {times[-1]:g} s: expected 0 to 1 s in them, as the "
                "published ones have"
            )
        return slice(int(inside[0]), int(inside[-1]) + 1)

    def _checked_unit(self) -> str:
        found = units.spread(np.concatenate(list(self._data(np.arange(min(_LOOKED_AT, len(self._epochs))))), axis=-1))
        unit = units.unit_of_epochs(found, "T")
        if unit is None:
            raise FileError(f"the signal of {WHAT} at {self._path} {units.wrong_unit(found, 'T')}")
        return unit

    def _data(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, n_channels, n_times) of these trials, read from the file."""
        try:
            data: NDArray[np.float64] = self._epochs[rows].get_data(picks=self._rows, copy=False, verbose="error")
        except Exception as error:  # of a file that ends too early, whatever its reader raises
            raise cannot_read(WHAT, self._path, error) from error
        return data[:, :, self._window]

    def _pieces(self, trials: Trials, memory: int) -> list[Piece]:
        """Sessions, in parts where they are too large for the memory."""
        most = max(1, memory // (_BYTES * len(self._epochs.ch_names) * len(self._epochs.times)))
        pieces = []
        for session in dict.fromkeys(trials.sessions.tolist()):
            rows = np.flatnonzero(trials.sessions == session)
            n_parts = -(-len(rows) // most)
            for part, some in enumerate(np.array_split(rows, n_parts), start=1):
                name = f"session{session:02d}" + (f"-part{part:02d}" if n_parts > 1 else "")
                self._parts[name] = some
                n_trials = int((self._shown.picture[some] >= 0).sum())
                pieces.append(Piece(name=name, n_trials=n_trials, files=(self._path,)))
        return pieces

    def read(self, piece: Piece) -> Block:
        """The trials of a part of a session that count."""
        rows = self._parts[piece.name]
        kept = rows[self._shown.picture[rows] >= 0]
        responses = (
            self._data(kept).astype(np.float32, order="C") if len(kept) else np.empty((0, *self.shape), np.float32)
        )
        return Block(responses=responses, picture=self._shown.picture[kept], dropped=self._shown.dropped(rows))

    def finish(self, trials: ReadTrials, folder: Path) -> Finished:
        """The layout; the chain that made the epochs is not stated in them."""
        layout = ResponseLayout(
            modality="meg",
            shape=self.shape,
            channels=tuple(_channel(self._epochs, row) for row in self._rows),
            sfreq=self._sfreq,
            tmin=self._tmin,
            unit=self._unit,
        )
        return Finished(
            layout=layout, notes=("the chain that made the epochs is not stated in them: they cannot run live",)
        )


def _channel(epochs: Any, row: int) -> Channel:
    return meg_channel(epochs.info, row)


def meg_channel(info: Any, row: int) -> Channel:
    """A magnetometer with its place in head coordinates, in metres, where it is known."""
    mne = mne_library()
    place = np.array(info["chs"][row]["loc"][:3], np.float64)
    transform = info["dev_head_t"]
    known = np.isfinite(place).all() and place.any()
    if known and transform is not None:
        place = mne.transforms.apply_trans(transform, place)
    position = (float(place[0]), float(place[1]), float(place[2])) if known else None
    return Channel(name=info["ch_names"][row], type="mag", position=position)


def _open(path: Path) -> Any:
    mne = mne_library()
    if not path.exists():
        raise FileError(f"{WHAT} are missing: {path} does not exist")
    try:
        return mne.read_epochs(path, preload=False, verbose="error")
    except Exception as error:  # the reader raises a dozen types for damaged files
        raise cannot_read(WHAT, path, error) from error


def _carried(epochs: Any, path: Path) -> Trials | None:
    """The table that the epochs carry with them."""
    metadata = epochs.metadata
    if metadata is None:
        return None
    rows = metadata if isinstance(metadata, list) else metadata.to_dict("records")
    if not rows or "image_path" not in rows[0]:
        return None
    return trials_from(rows, path)


def _agreed(table: Trials | None, carried: Trials | None, path: Path) -> Trials:
    if table is None and carried is None:
        raise FileError(
            f"{WHAT} at {path} carry no list of their trials, and there is no sample_attributes_P*.csv: put it "
            "into the "
            "folder sourcedata of SOURCE"
        )
    if table is None or carried is None:
        return carried if table is None else table  # type: ignore[return-value]
    if len(table) == len(carried) and list(table.paths) != list(carried.paths):
        n_other = sum(a != b for a, b in zip(table.paths, carried.paths, strict=True))
        raise FileError(
            f"{n_other} of {len(table)} trials of {WHAT} at {path} showed other pictures than {table.path} says: the "
            "table is of another subject, give sample_attributes_P*.csv of this one"
        )
    return table
