"""`detrend`, `baseline` and `zscore`: an epoch's own trend, mean and spread removed, by MNE's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .fields import check_names, number_or_null, wrong
from .stage import Array, EpochStep, Refused, Window

# MNE's data channels; electrodes of the eyes and muscles have a baseline, but no detrending.
_DATA = ("eeg", "mag", "grad", "ref_meg")
_WITH_BASELINE = (*_DATA, "eog", "ecg", "emg")


def open_detrend(step: Mapping[str, Any], before: Window, folder: Path | None) -> EpochStep:
    """``{"name": "detrend", "order": 0 or 1}``: the mean or the least-squares line of each channel is subtracted."""
    check_names(step, {"order"})
    order = step.get("order")
    if order not in (0, 1) or isinstance(order, bool):
        raise wrong(step, "order", "give 0 for the mean or 1 for a line")
    rows = _rows(before, _DATA)
    ramp = np.arange(before.n_times) - (before.n_times - 1) / 2
    power = float(ramp @ ramp)

    def apply(epoch: Array) -> Array:
        data = epoch[rows] - epoch[rows].mean(axis=1, keepdims=True)
        if order == 1 and power > 0:
            data -= ((data * ramp).sum(axis=1, keepdims=True) / power) * ramp
        epoch[rows] = data
        return epoch

    return EpochStep(after=before, apply=apply)


def open_baseline(step: Mapping[str, Any], before: Window, folder: Path | None) -> EpochStep:
    """``{"name": "baseline", "tmin": s or null, "tmax": s or null}``: the mean over this window is subtracted.

    Both ends are part of it; null is the epoch's own end.
    """
    window, rows = _window(step, before), _rows(before, _WITH_BASELINE)

    def apply(epoch: Array) -> Array:
        epoch[rows] -= epoch[rows][:, window].mean(axis=1, keepdims=True)
        return epoch

    return EpochStep(after=before, apply=apply)


def open_zscore(step: Mapping[str, Any], before: Window, folder: Path | None) -> EpochStep:
    """``{"name": "zscore", "tmin": s or null, "tmax": s or null}``: by the mean and sd of each channel in this window.

    As mne.baseline.rescale with mode "zscore". An epoch with a channel that does not vary there is refused.
    """
    window, rows = _window(step, before), _rows(before, _WITH_BASELINE)

    def apply(epoch: Array) -> Array:
        data = epoch[rows] - epoch[rows][:, window].mean(axis=1, keepdims=True)
        sd = data[:, window].std(axis=1, keepdims=True)
        if not sd.all():
            name = before.channels[rows[int(sd[:, 0].argmin())]].name
            raise Refused(f"a channel does not vary in the baseline and has no z-score: {name}")
        epoch[rows] = data / sd
        return epoch

    return EpochStep(after=replace(before, scaled=True), apply=apply)


def _rows(before: Window, types: tuple[str, ...]) -> list[int]:
    return [row for row, channel in enumerate(before.channels) if channel.type in types]


def _window(step: Mapping[str, Any], before: Window) -> slice:
    """The samples with tmin <= time <= tmax."""
    check_names(step, {"tmin", "tmax"})
    tmin, tmax = (number_or_null(step, name, "give seconds from the event, or null") for name in ("tmin", "tmax"))
    times = before.times
    # A time outside the epoch by less than a sample is the epoch's end, as in MNE: -0.2 s is no sample at 1024 Hz.
    slack = 1 / before.sfreq
    outside = (tmin is not None and tmin < times[0] - slack) or (tmax is not None and tmax > times[-1] + slack)
    inside = np.flatnonzero(
        (times >= (times[0] if tmin is None else tmin)) & (times <= (np.inf if tmax is None else tmax))
    )
    if outside or len(inside) == 0:
        given = f"{step.get('tmin')} s to {step.get('tmax')} s"
        raise InputError(
            f"the window of the step {step['name']!r} ({given}) does not lie in the epoch, {times[0]:g} s to "
            f"{times[-1]:g} s: give times inside it"
        )
    return slice(int(inside[0]), int(inside[-1]) + 1)
