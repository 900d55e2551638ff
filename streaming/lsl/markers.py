"""What a marker is: a text, a number, a label that is switched on, or a step of a stimulus channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Trigger codes have 8 to 32 bits; what is larger is no code, and must not overflow.
_MOST = 2.0**53


def text_rows(rows: NDArray[Any]) -> list[list[bytes]]:
    """Of a stream of texts: its one channel; several are joined by tabs."""
    return [[b"\t".join(row)] for row in rows.tolist()]


def number_rows(rows: NDArray[Any], labels: Sequence[str]) -> list[list[bytes]]:
    """Of a stream of numbers, (n, n_channels): the number, or with several channels the labels of those not zero."""
    if rows.shape[1] == 1:
        return [[number(value)] for value in rows[:, 0].tolist()]
    names = [(label or str(column + 1)).encode() for column, label in enumerate(labels)]
    return [[names[column] for column in np.flatnonzero(row)] for row in rows]


def number(value: float) -> bytes:
    """In decimal digits; a fraction is kept."""
    return (str(int(value)) if float(value).is_integer() else repr(float(value))).encode()


class StimulusChannel:
    """Finds the samples at which a trigger code begins, as ``mne.find_events`` does: a rise to another number.

    Parameters
    ----------
    row
        Of the channel.
    mask
        The bits that count, 0 for all.
    """

    def __init__(self, row: int, mask: int = 0) -> None:
        self.row, self._mask = row, mask
        self._last: int | None = None

    def codes(self, values: NDArray[np.float64]) -> list[tuple[int, int]]:
        """Of the next samples (n,): which begin a code, and the code. The very first sample begins none."""
        finite = np.where(np.isfinite(values), values, 0.0)
        whole = np.round(finite.clip(-_MOST, _MOST)).astype(np.int64)
        if self._mask:
            whole &= self._mask
        found = []
        for sample in np.flatnonzero(np.diff(whole, prepend=whole[:1] if self._last is None else self._last)):
            before = int(whole[sample - 1]) if sample else self._last
            if before is not None and int(whole[sample]) > before:
                found.append((int(sample), int(whole[sample])))
        if len(whole):
            self._last = int(whole[-1])
        return found
