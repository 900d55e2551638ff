"""The undisturbed signal: what an epoch under faults has to be, computed from the samples as the source gave them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtime.signal.chain import Chain
from ..records import MARKERS, SIGNAL, ClockOffset, Item, Samples

F64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Original:
    """A whole recording.

    Attributes
    ----------
    data
        (n_rows, n_samples) as they came.
    stamps
        (n_samples,).
    offsets
        Of each stream, (n, 2): when a clock offset was measured, and the offset.
    """

    data: F64
    stamps: F64
    offsets: dict[str, F64]

    @property
    def n_samples(self) -> int:
        return len(self.stamps)

    def sample_at(self, marker_stamp: float) -> int:
        """The sample that is nearest in time to a marker, by both clocks' offsets as they were measured then."""
        local = marker_stamp + self._offset(MARKERS, marker_stamp)
        return int(np.abs(self.stamps + self._offset(SIGNAL, marker_stamp) - local).argmin())

    def _offset(self, stream: str, stamp: float) -> float:
        measured = self.offsets.get(stream)
        if measured is None or not len(measured):
            return 0.0
        return float(np.interp(stamp, measured[:, 0] - measured[:, 1], measured[:, 1]))


def gather(items: Iterable[Item]) -> Original:
    """All samples and offsets of a source's items."""
    blocks: list[Samples] = []
    offsets: dict[str, list[tuple[float, float]]] = {SIGNAL: [], MARKERS: []}
    for item in items:
        if isinstance(item, Samples):
            blocks.append(item)
        elif isinstance(item, ClockOffset):
            offsets[item.stream].append((item.at, item.offset))
    return Original(
        data=np.concatenate([block.data for block in blocks], axis=1) if blocks else np.empty((0, 0)),
        stamps=np.concatenate([block.stamps for block in blocks]) if blocks else np.empty(0),
        offsets={stream: np.array(sorted(found)).reshape(-1, 2) for stream, found in offsets.items()},
    )


def reach(chain: Chain, sfreq: float) -> tuple[int, int]:
    """How many of the input's samples an epoch needs before its event and behind it, at most."""
    window = chain.plan.window
    before = -window.first / window.sfreq
    behind = (window.first + window.n_times - 1) / window.sfreq + chain.latency
    return max(0, round(before * sfreq)) + 1, max(0, round(behind * sfreq)) + 1


def epochs_of(chain: Chain, signal: F64, start: int, samples: Sequence[int]) -> dict[int, NDArray[np.float32]]:
    """Epochs of a stretch that begins at a sample, by the whole-recording form of the chain.

    Parameters
    ----------
    chain
        Opened for the signal.
    signal
        (n_channels, n_samples) of the whole recording, in V or T.
    start
        Where the stretch begins.
    samples
        Of the events, in the recording.

    Returns
    -------
    dict
        Event's sample to its epoch, where the chain gives one.
    """
    _, behind = reach(chain, chain.plan.input.sfreq)
    stop = min(signal.shape[1], max(samples) + behind + 1)
    made = chain.epochs(signal[:, start:stop], np.array(samples) - start)
    return {samples[event]: epoch for event, epoch in zip(made.kept.tolist(), made.data, strict=True)}
