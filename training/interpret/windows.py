"""When a feature can be read from EEG or MEG: a decoder for each short window, and how often it finds the picture.

The paper's temporal analysis (section 4.6.2): windows of 100 ms in steps of 25 ms, and the top-1 accuracy of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import ResponseLayout
from ...runtime.errors import InputError
from ..folds import folds_of
from ..normalise import statistics, z_score
from ..solvers.groups import predict_groups

Array = NDArray[Any]
Float64 = NDArray[np.float64]
WIDTH_S, STEP_S = 0.1, 0.025
STRUCTURE = "structure"
_N_FOLDS = 5
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Window:
    """Samples start to stop - 1 of an epoch; `time` is their middle in seconds, 0 when the picture appears."""

    start: int
    stop: int
    time: float


def windows(layout: ResponseLayout, *, width: float = WIDTH_S, step: float = STEP_S) -> list[Window]:
    """The windows that lie in an epoch, the first one at its beginning.

    Raises
    ------
    InputError
        The responses are no epochs, or shorter than a window; width or step is less than a sample.
    """
    if layout.sfreq is None or layout.tmin is None:
        raise InputError(f"responses of {layout.modality} have no time: give EEG or MEG")
    n_times = layout.shape[-1]
    size, stride = round(width * layout.sfreq), step * layout.sfreq
    if size < 1 or round(stride) < 1:
        raise InputError(
            f"windows of {width:g} s in steps of {step:g} s are shorter than a sample at {layout.sfreq:g} Hz: "
            "give longer ones"
        )
    if size > n_times:
        raise InputError(f"epochs have {n_times} samples, and a window of {width:g} s has {size}: give a shorter one")
    starts = [round(number * stride) for number in range(int((n_times - size) / stride) + 1)]
    return [
        Window(start=start, stop=start + size, time=layout.tmin + (start + (size - 1) / 2) / layout.sfreq)
        for start in starts
    ]


def drawn_dimensions(targets: Array, n_dimensions: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Dimensions of (n, d) features that vary, all or `n_dimensions` of them, in their order."""
    varying = np.flatnonzero(np.ptp(np.asarray(targets), axis=0) > 0)
    if len(varying) <= n_dimensions:
        return varying
    return np.sort(rng.choice(varying, n_dimensions, replace=False))


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Trials and what they showed.

    Attributes
    ----------
    responses : (n_trials, n_channels, n_times)
        Z-scored by the statistics of the training trials.
    stimulus : (n_trials,) int
        Rows of `features`.
    features : name -> (n_pictures, d)
        True features; the same names and widths in both splits.
    """

    responses: Array
    stimulus: NDArray[np.integer[Any]]
    features: Mapping[str, Array]


def window_hits(
    train: Split, test: Split, window: Window, *, pictures: NDArray[np.integer[Any]]
) -> tuple[dict[str, Float64], dict[str, float]]:
    """Whether each test trial's picture is the one whose true features are nearest to the decoded ones.

    A ridge from all values of the window, with a penalty by cross-validation over the training pictures, one for each
    feature. "Nearest" is by correlation over dimensions, z-scored by the training features' statistics, among all test
    pictures: chance is 1 / their number.

    Parameters
    ----------
    pictures : (n_training_trials,) int
        Numbers of the training pictures by content: copies of one stay in one fold.

    Returns
    -------
    Name -> (n_test_trials,) float64 of 0 and 1, and name -> penalty. Beside those given there is "structure", from all
    that is decoded of its layers ("structure 1" ...).
    """
    fold = folds_of(pictures, max(2, min(_N_FOLDS, len(np.unique(pictures)) // 2)))
    scored = {name: _scored(array, train.stimulus, test.features[name]) for name, array in train.features.items()}
    decoded, alphas = predict_groups(
        _flat(train.responses, window),
        {name: known[train.stimulus] for name, (known, _) in scored.items()},
        _flat(test.responses, window),
        fold,
    )
    candidates = {name: shown for name, (_, shown) in scored.items()}
    layers = [name for name in decoded if name.startswith(f"{STRUCTURE} ")]
    if layers:
        decoded[STRUCTURE], candidates[STRUCTURE] = (
            np.concatenate([arrays[name] for name in layers], axis=1) for arrays in (decoded, candidates)
        )
    return {name: top1(found, candidates[name], test.stimulus) for name, found in decoded.items()}, alphas


def top1(decoded: Array, candidates: Array, right: NDArray[np.integer[Any]]) -> Float64:
    """Whether each row's highest correlation among candidates is that with its own; ties are no hit.

    Parameters
    ----------
    decoded : (n_trials, d)
    candidates : (n_pictures, d)
    right : (n_trials,) int
    """
    a, b = (_unit_rows(np.asarray(array, np.float64)) for array in (decoded, candidates))
    table = a @ b.T
    own = np.take_along_axis(table, right[:, None].astype(np.intp), axis=1)[:, 0]
    np.put_along_axis(table, right[:, None].astype(np.intp), -np.inf, axis=1)
    hits: Float64 = (own > table.max(axis=1)).astype(np.float64)
    return hits


def held_out_peak(hits: Array, rng: np.random.Generator, *, n_splits: int = 200) -> Float64:
    """Each picture's accuracy in the window that is best for another half of the pictures, the mean over random halves.

    The highest of many accuracies is high by chance too; here the picture that is looked at has no part in the choice.
    Halves, and not all other pictures: where windows are about equally good, leaving a picture out that was found in
    one of them chooses another. Of equally good windows the mean is taken.

    Parameters
    ----------
    hits : (n_windows, n_pictures)
        Two pictures or more; of one alone its highest value is given.

    Returns
    -------
    (n_pictures,)
    """
    values = np.asarray(hits, np.float64)
    n = values.shape[1]
    if n < _FEWEST:
        highest: Float64 = values.max(axis=0)
        return highest
    chosen = np.argsort(rng.random((n_splits, n)), axis=1) < n // 2
    total, count = np.zeros(n), np.zeros(n)
    for half in (chosen, ~chosen):
        best = _highest(values @ half.T).astype(np.float64)
        found = (best / best.sum(axis=0)).T @ values
        total += (found * ~half).sum(axis=0)
        count += (~half).sum(axis=0)
    return total / count


def peak(
    times: Sequence[float], hits: Array, rng: np.random.Generator, *, n_resamples: int = 2000
) -> tuple[float, float, float]:
    """When the accuracy is highest, and the 95 % interval of that over resamples of the pictures.

    Parameters
    ----------
    times : n_windows middles, in seconds
    hits : (n_windows, n_pictures)

    Returns
    -------
    Time, and both ends of the interval (percentile bootstrap); where windows are equally good, their mean time.
    """
    values, moments = np.asarray(hits, np.float64), np.asarray(times, np.float64)
    n = values.shape[1]
    counts = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)
    found = [_time(moments, one) for one in (values.mean(axis=1)[:, None], values @ counts.T)]
    low, high = np.quantile(found[1], [0.025, 0.975])
    return float(found[0][0]), float(low), float(high)


def _time(moments: Float64, accuracy: Float64) -> Float64:
    best = _highest(accuracy)
    found: Float64 = (best * moments[:, None]).sum(axis=0) / best.sum(axis=0)
    return found


def _highest(accuracy: Float64) -> NDArray[np.bool_]:
    """Where each column is highest; sums of the same hits in another order are equal."""
    best: NDArray[np.bool_] = accuracy >= accuracy.max(axis=0) - 1e-9
    return best


def _flat(responses: Array, window: Window) -> Float64:
    part = np.asarray(responses[:, :, window.start : window.stop], np.float64)
    return part.reshape(len(part), -1)


def _scored(train: Array, shown: NDArray[np.integer[Any]], test: Array) -> tuple[Float64, Float64]:
    """Both by the statistics of the first over the training trials; what does not vary in these is 0."""
    known = np.asarray(train, np.float64)
    mean, std = statistics(known[shown])
    return z_score(known, mean, std), z_score(test, mean, std)


def _unit_rows(rows: Float64) -> Float64:
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    out: Float64 = centred / np.where(length > 0, length, 1)
    return out
