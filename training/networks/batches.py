"""Batches of trials: from memory where all of them fit, else read and normalised when they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..solvers.columns import Columns

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# float32 values of one array (the responses, or one feature's targets) that are held: 2 GiB. Larger ones are read by
# the batch.
HELD_VALUES = 1 << 29
# Values that are read at a time while an array is put into memory: 32 MB in float64.
_VALUES_AT_ONCE = 1 << 22


class Rows(Protocol):
    """Trials by their numbers: an array (n_trials, …), or what makes the rows when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: Any) -> NDArray[Any]: ...


class _TargetRows:
    """Targets by the trial, of columns that can be read so."""

    def __init__(self, targets: Any) -> None:
        self._targets, self.shape = targets, targets.shape

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        found: NDArray[Any] = self._targets.rows(rows)
        return found


@dataclass(frozen=True, eq=False)
class Batches:
    """Trials as a training step gets them, on its device.

    Attributes
    ----------
    responses : (n_trials, *response_shape)
    targets : feature to (n_trials, n_targets)
    pictures : (n_trials,) int64
        The same for trials of the same picture.
    """

    responses: Tensor | Rows
    targets: Mapping[str, Tensor | Rows]
    pictures: Tensor
    device: torch.device

    def read(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Responses, targets and pictures of some trials (n,) int64."""
        wanted = {feature: self._take(values, rows) for feature, values in self.targets.items()}
        return self._take(self.responses, rows), wanted, self._take(self.pictures, rows)

    def _take(self, source: Tensor | Rows, rows: Tensor) -> Tensor:
        import torch

        if isinstance(source, torch.Tensor):
            return source[rows.to(source.device)]
        # Into memory of PyTorch's own, whose alignment decides in which order some libraries sum.
        return torch.from_numpy(np.asarray(source[rows.numpy()], np.float32)).clone().to(self.device)


def open_batches(
    responses: Rows, targets: Mapping[str, Columns], pictures: NDArray[np.integer[Any]], device: torch.device
) -> Batches:
    """Hold on the device what is small enough (2 GiB each), and read the rest by the batch.

    Parameters
    ----------
    responses : (n_trials, *response_shape)
        Normalised.
    targets : feature to Columns
        Those with ``rows(which)``, (n, n_targets), can be read by the batch; others are held whatever their size.
    """
    import torch

    kept: dict[str, Tensor | Rows] = {}
    for feature, columns in targets.items():
        n_trials, n_targets = columns.shape
        large = n_trials * n_targets > HELD_VALUES and hasattr(columns, "rows")
        kept[feature] = _TargetRows(columns) if large else torch.from_numpy(_read(columns)).to(device)
    large = int(np.prod(responses.shape, dtype=np.int64)) > HELD_VALUES
    given: Tensor | Rows = responses if large else torch.from_numpy(_gathered(responses)).to(device)
    return Batches(given, kept, torch.from_numpy(np.asarray(pictures, np.int64)).to(device), device)


def split(rows: Tensor, size: int) -> list[Tensor]:
    """Trials in batches of `size`; one trial alone, of which no statistics can be made, goes to the batch before."""
    import torch

    parts = list(torch.split(rows, size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _read(targets: Columns) -> NDArray[np.float32]:
    n_trials, n_targets = targets.shape
    values, step = np.empty((n_trials, n_targets), np.float32), max(1, _VALUES_AT_ONCE // n_trials)
    for start in range(0, n_targets, step):
        stop = min(start + step, n_targets)
        values[:, start:stop] = targets.columns(start, stop)
    return values


def _gathered(responses: Rows) -> NDArray[np.float32]:
    values = np.empty(responses.shape, np.float32)
    step = max(1, _VALUES_AT_ONCE // max(1, values[0].size))
    for start in range(0, len(values), step):
        values[start : start + step] = responses[start : start + step]
    return values
