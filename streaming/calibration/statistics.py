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


def refitted(responses: Float32, training: TrainingStatistics, per: str) -> TrainingStatistics:
    """Statistics of today.

    Per channel: with z the z-scores of today's responses by training, a their mean and s their deviation over the
    trials and samples of a channel, mean' = mean + a std and std' = s std. Values that did not vary in training stay
    unused.

    Parameters
    ----------
    responses
        (n_trials, n_channels, n_times), on the scale of training.
    training
        Of the decoder.
    per
        Of `PER`.

    Raises
    ------
    InputError
        There are too few trials, or a channel is flat today.
    """
    check_choice("per", per, PER)
    if len(responses) < LEAST_TRIALS[per]:
        other = f", or estimate per channel, for which {LEAST_TRIALS['channel']} are enough" if per == "value" else ""
        raise InputError(
            f"{len(responses)} trials can be used, and per {per} at least {LEAST_TRIALS[per]} are needed: record more "
            f"of them{other}"
        )
    used = training.std > 0
    if per == "value":
        mean, std = responses.mean(axis=0, dtype=np.float64), responses.std(axis=0, dtype=np.float64)
    else:
        scores = training.scores(responses).astype(np.float64)
        counts = np.maximum(used.sum(axis=1), 1) * len(responses)
        shift = scores.sum(axis=(0, 2)) / counts
        spread = np.where(used, scores - shift[:, None], 0.0)
        scale = np.sqrt((spread**2).sum(axis=(0, 2)) / counts)
        mean = training.mean + shift[:, None] * training.std.astype(np.float64)
        std = scale[:, None] * training.std.astype(np.float64)
    std = np.where(used, std, 0.0).astype(np.float32)
    _check_flat(std, used, training)
    return TrainingStatistics(
        mean=np.where(used, mean, training.mean).astype(np.float32), std=std, layout=training.layout
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


def _check_flat(std: Float32, used: NDArray[np.bool_], training: TrainingStatistics) -> None:
    flat = [channel.name for row, channel in enumerate(_channels(training)) if (used[row] & (std[row] == 0)).any()]
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
