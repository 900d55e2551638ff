"""Mean and deviation of today's trials, in place of those of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import Channel
from ...runtime.decoders.scale import TrainingStatistics
from ...runtime.errors import InputError, check_choice

Float32 = NDArray[np.float32]
PER = ("channel", "value")
"""What is estimated: an offset and a scale of each channel, from all its samples in all trials; or a mean and a
deviation of each sample of each channel, as the fit does, from as many numbers as there are trials."""
LEAST_TRIALS = {"channel": 10, "value": 50}
_NAMED = 6


@dataclass(frozen=True, kw_only=True)
class Change:
    """What changed in a channel, medians over its samples.

    Its mean moved by `shift` standard deviations of training; its deviation is now `scale` times that of training.
    """

    channel: str
    shift: float
    scale: float


class Moments:
    """Mean and variance of the z-scores of today's trials, as they come: Welford's sums, in the memory of two trials.

    Parameters
    ----------
    training
        Of the decoder: z-scores are by it.

    Attributes
    ----------
    n
        Trials so far.
    mean, squares
        (n_channels, n_times) float64 over them, squares summed from the mean; 0 for what did not vary in training.
    """

    def __init__(self, training: TrainingStatistics) -> None:
        self.training, self.n = training, 0
        self._used = training.std > 0
        self.mean, self.squares = np.zeros(training.mean.shape), np.zeros(training.mean.shape)

    def add(self, response: Float32) -> None:
        """Take a trial (n_channels, n_times), on the scale of training."""
        away = response.astype(np.float64) - self.training.mean
        scores = np.divide(away, self.training.std, out=np.zeros_like(away), where=self._used)
        self.n += 1
        before = scores - self.mean
        self.mean += before / self.n
        self.squares += before * (scores - self.mean)


def refitted(today: Moments, per: str) -> TrainingStatistics:
    """Statistics of today.

    Per channel: with z the z-scores of today's responses by training, a their mean and s their deviation over the
    trials and samples of a channel, mean' = mean + a std and std' = s std; per value the same for each sample of a
    channel. Values that did not vary in training stay unused.

    Parameters
    ----------
    today
        Of the trials.
    per
        Of `PER`.

    Raises
    ------
    InputError
        There are too few trials, or a channel is flat today.
    """
    check_choice("per", per, PER)
    training = today.training
    if today.n < LEAST_TRIALS[per]:
        other = f", or estimate per channel, for which {LEAST_TRIALS['channel']} are enough" if per == "value" else ""
        raise InputError(
            f"{today.n} trials can be used, and per {per} at least {LEAST_TRIALS[per]} are needed: record more "
            f"of them{other}"
        )
    used = training.std > 0
    _check_flat(used & (today.squares == 0), training)
    shift, variance = today.mean, today.squares / today.n
    if per == "channel":
        counts = np.maximum(used.sum(axis=1, keepdims=True), 1)
        whole = shift.sum(axis=1, keepdims=True) / counts
        variance = np.where(used, variance + (shift - whole) ** 2, 0.0).sum(axis=1, keepdims=True) / counts
        shift = whole
    size = training.std.astype(np.float64)  # 0 for what is not used
    return TrainingStatistics(
        mean=(training.mean + shift * size).astype(np.float32),
        std=(np.sqrt(variance) * size).astype(np.float32),
        layout=training.layout,
    )


def changes(before: TrainingStatistics, after: TrainingStatistics) -> list[Change]:
    """What changed in each channel, the most first."""
    found = []
    for row, channel in enumerate(_channels(before)):
        used = before.std[row] > 0
        if used.any():
            std = before.std[row, used].astype(np.float64)
            shift = float(np.median((after.mean[row, used] - before.mean[row, used]) / std))
            found.append(Change(channel=channel.name, shift=shift, scale=float(np.median(after.std[row, used] / std))))
    return sorted(found, key=lambda change: -max(abs(change.shift), abs(float(np.log(change.scale)))))


def _check_flat(constant: NDArray[np.bool_], training: TrainingStatistics) -> None:
    flat = [channel.name for row, channel in enumerate(_channels(training)) if constant[row].any()]
    if flat:
        more = f" and {len(flat) - _NAMED} more" if len(flat) > _NAMED else ""
        raise InputError(
            f"{', '.join(flat[:_NAMED])}{more} did not vary over today's trials, and did in training: check these "
            "channels, and record again"
        )


def _channels(training: TrainingStatistics) -> Sequence[Channel]:
    if training.layout is None or training.layout.channels is None:
        raise InputError("only decoders of EEG and MEG can be calibrated live")
    return training.layout.channels
