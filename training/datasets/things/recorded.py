"""A subject whose recordings are continuous: epochs by the chain of runtime/signal, whitened by training trials.

A recording may be larger than the memory: channels go through the chain in groups, which changes no bit of the
epochs (no step before the whitening mixes channels), and the epochs of a long recording are made in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.layout import Channel
from ....runtime.errors import FileError
from ..joined import Joined
from ..reader import Block, Finished, Piece, Shown, Trials
from . import units

F32 = NDArray[np.float32]
# Float64 copies of a channel that its way through a filter takes.
_COPIES = 6
_LOOKED_AT = 60.0  # seconds of a recording from which its unit is recognised


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """A stretch of continuous signal.

    Attributes
    ----------
    name
        A file name of its own, such as "session01-training".
    files
        What it is read from.
    channels, sfreq, n_samples
        Of the signal; what is no channel of the epochs (a stimulus channel) is not among them.
    events
        (n_events,) int64, the sample of each picture that belongs to a trial.
    pictures
        (n_events,) int64, which of the subject's pictures.
    dropped
        How many events are no trial, by the reason.
    load
        ``load(rows, start, stop)``: these rows of `channels` and samples, (n, stop - start) float64, in V or T.
    """

    name: str
    files: tuple[Path, ...]
    channels: tuple[Channel, ...]
    sfreq: float
    n_samples: int
    events: NDArray[np.int64]
    pictures: NDArray[np.int64]
    load: Callable[[Sequence[int], int, int], NDArray[np.float64]]
    dropped: Mapping[str, int] = field(default_factory=dict)


class RecordedReader:
    """Epochs of recordings; a :class:`~..reader.Reader`.

    Parameters
    ----------
    subject, pictures, files, settings, notes
        As of a reader.
    recordings
        Opens a recording by its place in the list; each has the same channels and rate.
    signal
        The chain from the recording to the epochs, without picking and whitening: ``{"steps": […]}``.
    channels
        Names of the channels of the epochs, in their order.
    whiten
        Whether to whiten by the training trials' noise.
    memory
        In bytes.
    """

    place = "channel"

    def __init__(  # noqa: PLR0913 (a value object of a reader's parts)
        self,
        *,
        subject: str,
        pictures: Sequence[Shown],
        files: Mapping[Path, str],
        settings: Mapping[str, Any],
        notes: Sequence[str],
        recordings: Sequence[Callable[[], Recording]],
        signal: Mapping[str, Any],
        channels: Sequence[str],
        whiten: bool,
        memory: int,
    ) -> None:
        self.subject, self.pictures, self.files = subject, pictures, files
        self.settings = {**settings, "signal": signal, "channels": list(channels), "whiten": whiten}
        self.notes = tuple(notes)
        self._open, self._signal, self._names = list(recordings), signal, list(channels)
        self._whiten, self._memory = whiten, memory
        self._last: tuple[int, Recording] | None = None
        first = self._recording(0)
        self._all = self._chain(self._rows(first), first)
        output = self._all.output
        self.shape: tuple[int, ...] = (len(output.channels), output.n_times)
        self._parts: dict[str, tuple[int, slice]] = {}
        self.pieces: Sequence[Piece] = tuple(
            piece for number in range(len(self._open)) for piece in self._pieces(number)
        )

    def read(self, piece: Piece) -> Block:
        """The epochs of a part of a recording."""
        number, part = self._parts[piece.name]
        recording = self._recording(number)
        rows = self._rows(recording)
        events, pictures = recording.events[part], recording.pictures[part]
        _check_unit(recording, rows)
        data = np.empty((len(events), *self.shape), np.float32)
        refused: dict[int, str] = {}
        at_once = self._channels_at_once(recording, data.nbytes)
        for start in range(0, len(rows), at_once):
            group = rows[start : start + at_once]
            epochs = self._chain(group, recording).epochs(recording.load(group, 0, recording.n_samples), events)
            data[epochs.kept, start : start + len(group)] = epochs.data
            refused.update(epochs.refused)
        kept = np.array([index not in refused for index in range(len(events))], bool)
        dropped = dict(recording.dropped) if part.start == 0 else {}
        for reason in refused.values():
            dropped[reason] = dropped.get(reason, 0) + 1
        return Block(responses=data if kept.all() else data[kept], picture=pictures[kept], dropped=dropped)

    def finish(self, trials: Trials, folder: Path) -> Finished:
        """The layout; and the whitening matrix, fitted on all training trials of the subject and on nothing else."""
        from ....runtime.signal.chain import open_chain
        from ....runtime.signal.whitening import FILE, fit_whitening, save_whitening

        first = self._recording(0)
        steps = [{"name": "pick", "channels": self._names}, *self._signal["steps"]]
        if not self._whiten:
            return Finished(layout=open_chain({"steps": steps}, first.channels, first.sfreq).layout)
        parts, shown = [], []
        for _name, responses, picture in trials.training():
            parts.append(responses)
            shown.append(picture)
        joined = cast("NDArray[Any]", Joined(parts, self.shape))
        matrix = fit_whitening(joined, np.concatenate(shown))
        step = save_whitening(folder, matrix)
        layout = open_chain({"steps": [*steps, step]}, first.channels, first.sfreq, folder).layout

        def whitened(block: F32) -> F32:
            made: F32 = np.matmul(matrix, block.astype(np.float64)).astype(np.float32)
            return made

        n_trials = sum(map(len, shown))
        note = f"whitening (MVNN): one matrix for the subject, fitted on {n_trials} training trials and no test trial"
        return Finished(layout=layout, transform=whitened, files={FILE: folder / FILE}, notes=(note,))

    def _recording(self, number: int) -> Recording:
        if self._last is None or self._last[0] != number:
            self._last = (number, self._open[number]())
        return self._last[1]

    def _rows(self, recording: Recording) -> list[int]:
        places = {channel.name: row for row, channel in enumerate(recording.channels)}
        missing = [name for name in self._names if name not in places]
        if missing:
            raise FileError(
                f"{recording.name} ({recording.files[0]}) has no channel {missing[0]}, which the others have (it has "
                f"{len(places)} channels: {', '.join(list(places)[:6])}, ...): is it of another recording?"
            )
        return [places[name] for name in self._names]

    def _chain(self, rows: Sequence[int], recording: Recording) -> Any:
        from ....runtime.signal.chain import open_chain

        return open_chain(self._signal, [recording.channels[row] for row in rows], recording.sfreq)

    def _pieces(self, number: int) -> list[Piece]:
        recording = self._recording(number)
        first = self._all.plan.input
        if abs(recording.sfreq / first.sfreq - 1) > 1e-6:
            raise FileError(
                f"{recording.name} ({recording.files[0]}) has {recording.sfreq:g} Hz, and the first recording "
                f"{first.sfreq:g} Hz: is it of another data set?"
            )
        n_events = len(recording.events)
        most = max(1, self._memory // 2 // (4 * self.shape[0] * self.shape[1]))
        n_parts = max(1, -(-n_events // most))
        bounds = np.linspace(0, n_events, n_parts + 1).astype(int)
        pieces = []
        for part, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True), start=1):
            name = recording.name if n_parts == 1 else f"{recording.name}-part{part:02d}"
            self._parts[name] = (number, slice(int(start), int(stop)))
            pieces.append(Piece(name=name, n_trials=int(stop - start), files=recording.files))
        return pieces

    def _channels_at_once(self, recording: Recording, taken: int) -> int:
        per_channel = recording.n_samples * 8 * _COPIES + taken // self.shape[0]
        return max(1, (self._memory - taken) // per_channel)


def _check_unit(recording: Recording, rows: Sequence[int]) -> None:
    """Refuse µV for V and the like, from a minute in the middle of some channels."""
    some = list(rows[:: max(1, len(rows) // 8)])
    n = min(recording.n_samples, int(_LOOKED_AT * recording.sfreq))
    start = (recording.n_samples - n) // 2
    unit = "T" if recording.channels[some[0]].type in ("mag", "grad") else "V"
    wrong = units.wrong_unit(units.spread(recording.load(some, start, start + n)), unit)
    if wrong is not None:
        raise FileError(f"the signal of {recording.name} ({recording.files[0]}) {wrong}")
