"""One subject's recordings as md-train prepare reads them: through the signal chain, a stretch at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.errors import InputError
from ..reader import Block, Finished, Piece
from ..reader import Trials as ReadTrials
from .scale import check_scale
from .source import Recording
from .steps import ChainOptions, chain_of, left_out
from .table import Table
from .trials import SPOILT, trials_of

F32 = NDArray[np.float32]
WARM_UP = "in the filters' warm-up"
# Float64 copies of the samples that a step makes; and of the whole recording, forward and backward.
_COPIES = 6


class Recordings:
    """A :class:`~..reader.Reader` of continuous recordings.

    Parameters
    ----------
    subject
        A name.
    recordings
        Opened.
    table
        What was shown.
    options
        The chain.
    whiten
        Whether to whiten by the noise of the training trials.
    keep_warm_up
        Whether to keep epochs at a recording's start, where the filters have not settled.
    delay
        Seconds from an event to the picture.
    how
        The options with which the recordings were opened, for the settings.
    memory
        In bytes, for what a piece takes.
    """

    place = "channel"

    def __init__(  # noqa: PLR0913 (a reader's parts)
        self,
        subject: str,
        recordings: Sequence[Recording],
        table: Table,
        options: ChainOptions,
        *,
        whiten: bool,
        keep_warm_up: bool,
        delay: float,
        how: Mapping[str, str | None],
        memory: int,
    ) -> None:
        self.subject, self.pictures = subject, table.pictures
        self._recordings, self._whiten, self._keep, self._memory = recordings, whiten, keep_warm_up, memory
        self._signal = chain_of(recordings, options)
        self._names: list[str] = self._signal["steps"][0]["channels"]
        self._trials, notes = trials_of(table, recordings, delay)
        chains = [self._chain(recording) for recording in recordings]
        output = chains[0].output
        self._layout = chains[0].layout
        self.shape: tuple[int, ...] = (len(output.channels), output.n_times)
        self.files = {file: f"recording {r.name}" for r in recordings for file in r.files}
        self.files[table.path] = "table of events and pictures"
        self.settings: Mapping[str, Any] = {
            "signal": self._signal, "options": options.as_json(), "whiten": whiten, "keep_warm_up": keep_warm_up,
            "delay": delay, **how,
        }  # fmt: skip
        skipped = left_out(recordings, [channel.name for channel in output.channels])
        self.notes = tuple([_about(chains[0]), *([skipped] if skipped else []), *notes])
        self._parts: dict[str, tuple[int, slice]] = {}
        self.pieces: Sequence[Piece] = tuple(
            piece for number in range(len(recordings)) for piece in self._pieces(number)
        )

    def read(self, piece: Piece) -> Block:
        """The epochs of a recording, or of a part of its events."""
        number, part = self._parts[piece.name]
        recording, trials = self._recordings[number], self._trials[number]
        samples, pictures = trials.samples[part], trials.pictures[part]
        chain = self._chain(recording)
        data = np.empty((len(samples), *self.shape), np.float32)
        dropped = Counter(trials.dropped if part.start == 0 else {})
        kept: list[int] = []
        for start, stop in recording.segments:
            inside = np.flatnonzero((start <= samples) & (samples < stop))
            clean = [index for index in inside.tolist() if not self._is_spoilt(recording, chain, int(samples[index]))]
            dropped[SPOILT] += len(inside) - len(clean)
            for index, epoch, reason in self._epochs(recording, chain, start, stop, clean, samples):
                if epoch is None:
                    dropped[str(reason).split(": ")[0]] += 1
                else:
                    data[len(kept)] = epoch
                    kept.append(index)
        made = data[: len(kept)]
        check_scale(made, chain.output.channels, str(recording.path))
        return Block(responses=made, picture=pictures[kept], dropped={k: n for k, n in dropped.items() if n})

    def finish(self, trials: ReadTrials, folder: Path) -> Finished:
        """The layout; and the whitening matrix, fitted on the training trials alone."""
        if not self._whiten:
            return Finished(layout=self._layout)
        from ....runtime.signal.chain import open_chain
        from ....runtime.signal.whitening import FILE, fit_whitening, save_whitening
        from ..joined import Joined

        parts, shown = [], []
        for _name, responses, picture in trials.training():
            parts.append(responses)
            shown.append(picture)
        joined: Any = Joined(parts, self.shape)
        matrix = fit_whitening(joined, np.concatenate(shown))
        signal = {"steps": [*self._signal["steps"], save_whitening(folder, matrix)]}
        plan = self._chain(self._recordings[0]).plan
        layout = open_chain(signal, plan.input.channels, plan.input.sfreq, folder).layout

        def whitened(block: F32) -> F32:
            return np.stack([(matrix @ epoch.astype(np.float64)).astype(np.float32) for epoch in block])

        note = f"whitened by the noise of {len(joined)} training trials (MVNN)"
        return Finished(layout=layout, transform=whitened, files={FILE: folder / FILE}, notes=(note,))

    def _chain(self, recording: Recording) -> Any:
        from ....runtime.signal.chain import open_chain

        channels = [recording.channels[row] for row in self._rows(recording)]
        return open_chain(self._signal, channels, recording.sfreq)

    def _rows(self, recording: Recording) -> list[int]:
        places = {channel.name: row for row, channel in enumerate(recording.channels)}
        return [places[name] for name in self._names]

    def _pieces(self, number: int) -> Iterator[Piece]:
        """The recording, or as many parts of its events as the memory asks for."""
        recording, n_trials = self._recordings[number], len(self._trials[number].samples)
        most = max(1, self._memory // 2 // (4 * self.shape[0] * self.shape[1]))
        n_parts = max(1, -(-n_trials // most))
        same = [other for other in self._recordings if other.name == recording.name]
        name = recording.name if len(same) == 1 else f"{recording.name}-{same.index(recording) + 1}"
        bounds = np.linspace(0, n_trials, n_parts + 1).astype(int)
        for part, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False), start=1):
            own = name if n_parts == 1 else f"{name}-part{part:03d}"
            self._parts[own] = (number, slice(int(start), int(stop)))
            yield Piece(name=own, n_trials=int(stop - start), files=recording.files)

    def _is_spoilt(self, recording: Recording, chain: Any, sample: int) -> bool:
        window = chain.plan.window
        first = sample + window.times[0] * recording.sfreq
        last = sample + window.times[-1] * recording.sfreq
        return any(start <= last and first < stop for start, stop in recording.spoilt)

    def _epochs(
        self, recording: Recording, chain: Any, start: int, stop: int, wanted: Sequence[int], samples: NDArray[np.int64]
    ) -> Iterator[tuple[int, F32 | None, str | None]]:
        """(index, epoch or None, reason) of the wanted events of one stretch, in their order."""
        if not wanted:
            return
        rows = self._rows(recording)
        if chain.causal:
            yield from self._streamed(recording, chain, rows, range(start, stop), wanted, samples)
            return
        size = _COPIES * 8 * len(rows) * (stop - start)
        if size > self._memory * 4:
            raise InputError(
                f"filtering {recording.path} forward and backward takes {size / 1e9:.1f} GB: allow it with --memory, "
                "or filter with --causal, which takes no more than a few seconds at a time"
            )
        epochs = chain.epochs(recording.read(rows, start, stop), samples[wanted] - start)
        for row, index in enumerate(epochs.kept):
            settled = self._keep or not epochs.in_warm_up[row]
            yield wanted[index], epochs.data[row] if settled else None, None if settled else WARM_UP
        for index, reason in epochs.refused.items():
            yield wanted[index], None, reason

    def _streamed(
        self,
        recording: Recording,
        chain: Any,
        rows: Sequence[int],
        stretch: range,
        wanted: Sequence[int],
        samples: NDArray[np.int64],
    ) -> Iterator[tuple[int, F32 | None, str | None]]:
        """As a live system would: in chunks, until the last epoch is there."""
        stream = chain.stream()
        for index in wanted:
            stream.mark(int(samples[index]) - stretch.start, index)
        step = max(1, self._memory // (2 * _COPIES * 8 * len(rows)))
        outcomes = stream.pop()
        for first in range(stretch.start, stretch.stop, step):
            stream.push(recording.read(rows, first, min(first + step, stretch.stop)))
            outcomes = [*outcomes, *stream.pop()]
            yield from map(self._settled, outcomes)
            outcomes = []
            if not stream.n_waiting:
                return
        yield from map(self._settled, [*outcomes, *stream.finish()])

    def _settled(self, outcome: Any) -> tuple[int, F32 | None, str | None]:
        if outcome.in_warm_up and not self._keep:
            return outcome.id, None, WARM_UP
        return outcome.id, outcome.data, outcome.reason


def _about(chain: Any) -> str:
    """A sentence about the chain."""
    output = chain.output
    way = (
        f"causal filters, delay {1000 * chain.delay:.0f} ms" if chain.causal else "zero-phase filters: not for live use"
    )
    return (
        f"{len(output.channels)} channels x {output.n_times} samples, {output.times[0]:g} to {output.times[-1]:g} s at "
        f"{output.sfreq:g} Hz; {way}, warm-up {chain.warm_up:.1f} s"
    )
