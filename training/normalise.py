"""Z-scores by training statistics: of responses (kept in the checkpoint) and of targets (read in chunks)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import InputError, ShapeError

Array = NDArray[Any]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# A standard deviation below this share of the mean is what float32 rounding alone leaves.
_MIN_RELATIVE_STD = 1e-6
# Values of a feature array looked at together.
_CHUNK_VALUES = 1 << 23


def statistics(values: Array) -> tuple[Float32, Float32]:
    """Mean and population standard deviation over rows, float32; a constant column has standard deviation 0."""
    values = np.asarray(values, np.float64)
    mean, std = values.mean(axis=0), values.std(axis=0)
    std[std <= _MIN_RELATIVE_STD * np.abs(mean)] = 0.0
    std[std.astype(np.float32) < np.finfo(np.float32).tiny] = 0.0
    return mean.astype(np.float32), std.astype(np.float32)


def z_score(values: Array, mean: Float32, std: Float32) -> Float64:
    """(values - mean) / std in float64; columns of standard deviation 0 become 0."""
    centred = np.subtract(values, mean, dtype=np.float64)
    return np.divide(centred, std, out=np.zeros_like(centred), where=std > 0)


@dataclass(frozen=True)
class Normaliser:
    """Statistics of the training responses.

    Attributes
    ----------
    mean, std : (*response_shape) float32
        `std` is 0 for a value that did not vary: it contributes 0.
    """

    mean: Float32
    std: Float32

    @property
    def constant(self) -> NDArray[np.intp]:
        """Values of the flattened responses (of fMRI: voxels) that did not vary over the training trials."""
        return np.flatnonzero(self.std == 0)

    def __call__(self, responses: Array) -> Float64:
        return z_score(responses, self.mean, self.std)


class ZScored:
    """Normalised responses, float32, by the trial: nothing but what is asked for is computed.

    Parameters
    ----------
    responses : (n_trials, *response_shape)
    normaliser : Normaliser
    """

    def __init__(self, responses: Array, normaliser: Normaliser) -> None:
        self._responses, self.normaliser = responses, normaliser

    @property
    def shape(self) -> tuple[int, ...]:
        return self._responses.shape

    def __getitem__(self, rows: Any) -> Float32:
        """Trials by numbers, a slice or a mask: (n, *response_shape) float32."""
        return self.normaliser(self._responses[rows]).astype(np.float32)


def fit_normaliser(responses: Array) -> Normaliser:
    """Fit to training responses (n_trials, *response_shape).

    Raises
    ------
    ShapeError
        Not a row or more for each trial, or fewer than two trials.
    InputError
        A trial holds NaN or infinite values, or nothing varies.
    """
    if responses.ndim < 2 or len(responses) < 2 or responses[0].size == 0:
        raise ShapeError(
            f"training responses are {responses.shape}: expected (n_trials, *response_shape), 2 trials or more"
        )
    bad = np.flatnonzero(~np.isfinite(responses.reshape(len(responses), -1)).all(axis=1))
    if len(bad) == len(responses):
        raise InputError("every training trial holds NaN or infinite responses: check how the data were exported")
    if len(bad) > 0:
        some = ", ".join(str(trial) for trial in bad[:8]) + (", …" if len(bad) > 8 else "")
        raise InputError(
            f"{len(bad)} of {len(responses)} training trials hold NaN or infinite responses (trials {some}): "
            "remove them from the train split"
        )
    normaliser = Normaliser(*statistics(responses))
    if len(normaliser.constant) == responses[0].size:
        raise InputError("no response varies over the training trials: check how the responses were exported")
    return normaliser


class TargetColumns:
    """Z-scored targets of every trial, read from per-stimulus features a few columns at a time.

    Parameters
    ----------
    features : (n_stimuli, n_dimensions)
        May be mapped from a file.
    rows : (n_trials,) int
        The stimulus of each trial.
    positions : (n_targets,) int, ascending
        The dimensions that are targets.
    statistics : (mean, std), each (n_dimensions,), optional
        Computed over `rows` when not given.
    """

    def __init__(
        self,
        features: Array,
        rows: NDArray[np.integer[Any]],
        positions: NDArray[np.integer[Any]],
        statistics: tuple[Float32, Float32] | None = None,
    ) -> None:
        self._features, self._rows, self.positions = features, rows, positions
        self.mean, self.std = column_statistics(features, rows) if statistics is None else statistics

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._rows), len(self.positions)

    def columns(self, start: int, stop: int) -> Float64:
        """Columns start..stop-1, (n_trials, stop - start) float64."""
        wanted = self.positions[start:stop]
        # One contiguous slab of columns from the file, then what is wanted of it.
        slab = np.asarray(self._features[:, wanted[0] : wanted[-1] + 1])[:, wanted - wanted[0]]
        return z_score(slab[self._rows], self.mean[wanted], self.std[wanted])

    def rows(self, trials: NDArray[np.integer[Any]]) -> Float64:
        """All columns of some trials (n,), (n, n_targets) float64; their stimuli's whole features are read."""
        whole = np.asarray(self._features[self._rows[trials]])
        return z_score(whole[:, self.positions], self.mean[self.positions], self.std[self.positions])


class SampledColumns:
    """As :class:`TargetColumns`, of all dimensions, for whoever reads a few: statistics are computed when asked."""

    def __init__(self, features: Array, rows: NDArray[np.integer[Any]]) -> None:
        self._features, self._rows = features, rows

    @property
    def shape(self) -> tuple[int, int]:
        return len(self._rows), self._features.shape[1]

    def columns(self, start: int, stop: int) -> Float64:
        """Columns start..stop-1, (n_trials, stop - start) float64."""
        part = self._features[:, start:stop]
        return TargetColumns(part, self._rows, np.arange(stop - start)).columns(0, stop - start)


def column_statistics(features: Array, rows: NDArray[np.integer[Any]]) -> tuple[Float32, Float32]:
    """Mean and standard deviation of every dimension of `features` (n_stimuli, n_dimensions) over trials `rows`."""
    n_dimensions = features.shape[1]
    mean, std = np.empty(n_dimensions, np.float32), np.empty(n_dimensions, np.float32)
    step = max(1, _CHUNK_VALUES // max(1, len(rows)))
    for start in range(0, n_dimensions, step):
        part = slice(start, start + step)
        mean[part], std[part] = statistics(np.asarray(features[:, part])[rows])
    return mean, std
