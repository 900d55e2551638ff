"""What a metric is, and the checks that every metric makes once at its border."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ShapeError

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

# By which a sum of some ten million float64 products may leave the range: 1e7 units of 2e-16, rounded up.
_ROUNDING = 1e-8


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number per trial, and everything that a reader needs to know about it.

    Attributes
    ----------
    name
        The key in summary.json and trials.json.
    label
        What tables and headings call it.
    meaning
        One or two sentences for a reader of the report.
    needs
        The extractor whose features `function` compares; a name of
        :data:`~minddiffuser.runtime.metrics.extractors.EXTRACTORS`.
    function
        ``function(truth, prediction) -> (n,) float64``, finite, by the extractor's features of each trial's stimulus
        and of its picture. With `compares_pictures` it takes a third argument, the stimulus id of each trial.
    better
        Which direction is better.
    range
        The smallest and the largest value that there can be.
    compares_pictures
        Whether a trial's value depends on other trials' stimuli too; not for whole images, which are never all held.
    compares_reconstructions
        Whether a trial's value depends on other trials' pictures too, so that two methods' values of one trial cannot
        be exchanged for each other.
    min_pictures
        The smallest number of different stimuli for which the metric is defined.
    headline
        Whether the report says its change in words at the top.
    default
        Whether it is computed where nobody asks for it by name: what needs weights that are not part of the run's
        models is not.
    """

    name: str
    label: str
    meaning: str
    needs: str
    function: Callable[..., FloatArray]
    better: Literal["higher", "lower"] = "higher"
    range: tuple[float, float] = (-np.inf, np.inf)
    compares_pictures: bool = False
    compares_reconstructions: bool = False
    min_pictures: int = 1
    headline: bool = True
    default: bool = True

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.better == "higher" else -1

    def __call__(self, truth: Array, prediction: Array, stimulus_ids: Sequence[str]) -> FloatArray:
        """Value of each of n trials, (n,) float64; one that is not what the metric says of itself is refused."""
        given = (truth, prediction, stimulus_ids) if self.compares_pictures else (truth, prediction)
        values = np.asarray(self.function(*given), np.float64)
        if values.shape != (len(truth),):
            raise ShapeError(
                f"the metric {self.name} gave {values.shape} for {len(truth)} trials: return one value each"
            )
        low, high = self.range
        outside = values[(values < low - _ROUNDING) | (values > high + _ROUNDING)]  # NaN is neither
        if outside.size:
            raise InputError(
                f"the metric {self.name} gave {outside[0]:.6g}, its range is {low:g} to {high:g}: correct one of them"
            )
        return values


def check_pictures(images: Array, reconstructions: Array) -> None:
    """Refuse anything but two sets of equally many floating-point RGB pictures in [0, 1].

    The two sets may differ in resolution: the metrics bring both to one.
    """
    for what, pictures in (("images", images), ("reconstructions", reconstructions)):
        check_picture_set(what, pictures)
    if len(images) != len(reconstructions):
        raise ShapeError(
            f"there are {len(images)} images and {len(reconstructions)} reconstructions: "
            "give one reconstruction per image, in the same order"
        )


def check_picture_set(what: str, pictures: Array) -> None:
    """Refuse anything but (n, 3, H, W) floating-point pictures in [0, 1] with n, H and W at least 1."""
    if not isinstance(pictures, np.ndarray) or not np.issubdtype(pictures.dtype, np.floating):
        given = getattr(pictures, "dtype", type(pictures).__name__)
        raise ShapeError(f"{what} are {given}, expected a float32 numpy array: divide uint8 pictures by 255")
    if pictures.ndim != 4 or pictures.shape[1] != 3 or 0 in pictures.shape:
        raise ShapeError(f"{what} have shape {pictures.shape}, expected (n, 3, H, W), none 0: move the colour axis")
    low, high = float(pictures.min()), float(pictures.max())  # a NaN anywhere makes both NaN
    if not (low >= 0 and high <= 1):
        raise InputError(f"{what} span {low:.4g} to {high:.4g}, expected [0, 1]: clip them and remove NaN first")


def check_features(features_true: Array, features_pred: Array) -> None:
    """Refuse anything but two finite floating-point arrays of one shape (n, d), with d at least 2."""
    for what, features in (("features_true", features_true), ("features_pred", features_pred)):
        check_picture_features(what, features)
    if features_true.shape != features_pred.shape:
        raise ShapeError(
            f"features_true have shape {features_true.shape}, features_pred {features_pred.shape}, expected the same: "
            "give the same trials and the same encoder for both"
        )


def check_picture_features(what: str, features: Array) -> None:
    """Refuse anything but a finite floating-point array (n, d), with d at least 2."""
    if not isinstance(features, np.ndarray) or not np.issubdtype(features.dtype, np.floating):
        given = getattr(features, "dtype", type(features).__name__)
        raise ShapeError(f"{what} are {given}, expected a floating-point numpy array: convert them")
    if features.ndim != 2 or features.shape[1] < 2:
        raise ShapeError(f"{what} have shape {features.shape}, expected (n, d), d >= 2: flatten each trial")
    if not np.isfinite(features).all():
        raise InputError(f"{what} hold NaN or infinite values, expected finite ones: drop those trials first")


def check_labels(true_labels: Array, predicted_labels: Array) -> None:
    """Refuse anything but two integer arrays of one shape (n,), with n at least 1."""
    for what, labels in (("true_labels", true_labels), ("predicted_labels", predicted_labels)):
        if not isinstance(labels, np.ndarray) or not np.issubdtype(labels.dtype, np.integer):
            given = getattr(labels, "dtype", type(labels).__name__)
            raise ShapeError(f"{what} are {given}, expected an integer numpy array: give class indices, not names")
        if labels.ndim != 1 or not len(labels):
            raise ShapeError(f"{what} have shape {labels.shape}, expected (n,) with n >= 1: give one label per trial")
    if len(true_labels) != len(predicted_labels):
        raise ShapeError(
            f"there are {len(true_labels)} true and {len(predicted_labels)} predicted labels: give both for each trial"
        )


def check_stimulus_ids(stimulus_ids: Sequence[str], n_trials: int) -> None:
    """Refuse anything but one id for each trial."""
    if len(stimulus_ids) != n_trials:
        raise ShapeError(f"there are {len(stimulus_ids)} stimulus ids for {n_trials} trials: give one for each trial")
