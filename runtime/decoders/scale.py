"""Whether responses are on the scale of the training responses: one check for checkpoints, bundles and live signals.

Both measures come from the z-scores of the given responses by the statistics of training, over what
varied in training (of fMRI: voxels; of EEG and MEG: samples of channels):

median   of the absolute z-scores of all trials and values
spread   of each value the standard deviation of its z-scores over trials, which is the given standard deviation over
         that of training; the median over values. Counts from `SPREAD_TRIALS` trials on.

Measured on a simulated subject (``md-train simulate fmri --brain clip --seed 7 --n-train 300 --n-test 64``), whose
test trials average three showings. "raw" gives each voxel another mean (300 to 1,500) and size (5 to 40 times), as raw
fMRI has; "z-scored" is by the means and deviations of its own split:

========================= ======================= ======== =======
training                  given                     median  spread
========================= ======================= ======== =======
raw                       the same                    0.54    0.79
raw                       20 % larger                  5.7    0.95
raw                       z-scored                      28   0.032
raw                       x 300, as NSD's int16      8,400     240
raw                       x 0.01                        28  0.0079
raw                       voxels reversed               11    0.80
z-scored                  raw                          900      25
centred on 0              the same                    0.54    0.79
centred on 0              20 % larger                 0.65    0.95
centred on 0              x 300, as NSD's int16        160     240
centred on 0              x 0.01                     0.028  0.0079
centred on 0              x 10^-6, V for µV          0.027 7.9e-07
========================= ======================= ======== =======

The gabor brain gives the same figures to within 5 %. A normal distribution has a median of 0.67. Averaging repetitions,
quieter pictures or a louder session move both measures by a factor of two or so; the warnings lie beyond a factor of
five, the refusals beyond one of forty. Single trials of EEG and MEG are nearly all noise, and test trials are often
means of many: of 80, as in THINGS-EEG2, they have a median of 0.085 and a spread of 0.11 (``md-train simulate eeg
--seed 5 --n-train 300``), so that the warnings about small values begin below the mean of 500.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.layout import ResponseLayout
from ..errors import InputError

Float32 = NDArray[np.float32]

WARN_MEDIAN, REFUSE_MEDIAN = (0.1, 4.0), (0.01, 30.0)
WARN_SPREAD, REFUSE_SPREAD = (0.2, 5.0), (0.02, 50.0)
# Of EEG and MEG, where trials may be means of many that are nearly all noise: 0.67 and 1 over the root of 500.
WARN_SMALL_OF_SENSORS = (0.03, 0.045)
SPREAD_TRIALS = 8
# Of a few values that are right, the median may be small by chance: 16 normal ones fall below 0.1 once in 60,000 times.
SMALL_MEDIAN_VALUES = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingStatistics:
    """What decoders know of the responses that they were fitted on.

    Attributes
    ----------
    mean, std : (*response_shape) float32
        std is 0 for a value that did not vary.
    layout : ResponseLayout, or None where it is not known
    """

    mean: Float32
    std: Float32
    layout: ResponseLayout | None = None

    def scores(self, responses: NDArray[Any]) -> Float32:
        """Z-scores (n_trials, *response_shape) float32; 0 for values that did not vary in training."""
        return z_scores(responses, self.mean, self.std)


def z_scores(responses: NDArray[Any], mean: Float32, std: Float32) -> Float32:
    """(responses - mean) / std for (n_trials, *response_shape); 0 where the deviation is 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        scores: Float32 = np.divide(responses - mean, std, out=np.zeros_like(responses), where=std > 0)
    return scores


@dataclass(frozen=True)
class Scale:
    """The two measures; `spread` is None for fewer than `SPREAD_TRIALS` trials."""

    median: float
    spread: float | None
    n_values: int

    def outside(self, median: tuple[float, float], spread: tuple[float, float]) -> bool:
        """Whether a measure lies outside its range."""
        small = self.median < median[0] and self.n_values >= SMALL_MEDIAN_VALUES
        wide = self.spread is not None and not spread[0] <= self.spread <= spread[1]
        return small or self.median > median[1] or wide

    def __str__(self) -> str:
        text = f"their median absolute z-score by the training statistics is {self.median:.2g} (0.7 is usual)"
        if self.spread is not None:
            text += f" and their spread over trials is {self.spread:.2g} times that of training (1 is usual)"
        return text


def measure_scale(scores: Float32) -> Scale:
    """Measure z-scores (n_trials, n_values) of values that varied in training; none of them NaN."""
    sizes = np.abs(scores)
    # A trial that is an artefact in most values would widen the spread of all.
    usual = scores[np.median(sizes, axis=1) <= REFUSE_MEDIAN[1]]
    rows = usual if len(usual) else scores
    with np.errstate(over="ignore", invalid="ignore"):
        spread = None if len(rows) < SPREAD_TRIALS else float(np.median(np.std(rows, axis=0, dtype=np.float64)))
    if spread is not None and np.isnan(spread):  # infinite z-scores
        spread = np.inf
    return Scale(float(np.median(sizes)), spread, sizes.size)


def check_scale(scores: Float32, *, sensors: bool = False) -> str | None:
    """Refuse responses that cannot be on the scale of training, and warn of those that hardly are.

    Parameters
    ----------
    scores : (n_trials, n_values) float32
        Z-scores of values that varied in training, n_trials 1 or more; none of them NaN.
    sensors
        Whether they are of EEG or MEG, where smaller values are usual.

    Returns
    -------
    A warning in one sentence, or None.

    Raises
    ------
    InputError
        The median or the spread lies outside `REFUSE_MEDIAN` or `REFUSE_SPREAD`.
    """
    scale = measure_scale(scores)
    if scale.outside(REFUSE_MEDIAN, REFUSE_SPREAD):
        raise InputError(
            f"the responses are not on the scale of the training responses: {scale}. {_cause(scale)}: give them in the "
            "units, and normalised, as in training"
        )
    median, spread = WARN_SMALL_OF_SENSORS if sensors else (WARN_MEDIAN[0], WARN_SPREAD[0])
    if scale.outside((median, WARN_MEDIAN[1]), (spread, WARN_SPREAD[1])):
        return (
            f"the responses are barely on the scale of the training responses: {scale}. {_cause(scale)}; what is "
            "decoded from them may be wrong"
        )
    return None


def _cause(scale: Scale) -> str:
    """The likely cause, a sentence without its full stop."""
    far, near = scale.median > WARN_MEDIAN[1], scale.median < WARN_MEDIAN[0]
    wide = scale.spread is not None and scale.spread > WARN_SPREAD[1]
    narrow = scale.spread is not None and scale.spread < WARN_SPREAD[0]
    if wide:
        return (
            "They are too large, as when units differ (NSD's betas are stored as int16, 300 times percent; µV are "
            "10^6 times V), or when they are raw and the training responses were z-scored"
        )
    if narrow and far:
        return (
            "They vary too little, around other means, as when they were z-scored already or have smaller units, and "
            "the training responses are raw"
        )
    if narrow or near:
        return (
            "They vary too little, as when units differ (V are 10^-6 times µV), many trials were averaged, or all are "
            "copies of one"
        )
    return (
        "Their means differ from those in training, as when units or the baseline differ, when only one of both "
        "was z-scored, or when they come from other voxels or channels"
    )
