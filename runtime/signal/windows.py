"""`epoch` and `crop`: which samples around an event, by MNE's rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .fields import check_names, number, number_or_null
from .stage import Continuous, EpochStep, Window


def open_epoch(step: Mapping[str, Any], before: Continuous) -> Window:
    """``{"name": "epoch", "tmin": s, "tmax": s}``: the samples from round(tmin sfreq) to round(tmax sfreq), inclusive.

    As mne.Epochs: 0.7 s at 100 Hz are 71 samples.
    """
    check_names(step, {"tmin", "tmax"})
    tmin, tmax = (number(step, name, "give seconds from the event") for name in ("tmin", "tmax"))
    if tmin > tmax:
        raise InputError(f"the step 'epoch' goes from {tmin:g} s to {tmax:g} s: tmin comes first")
    first, last = round(tmin * before.sfreq), round(tmax * before.sfreq)
    return Window(
        channels=before.channels, sfreq=before.sfreq, first=first, n_times=last - first + 1, filters=before.filters
    )


def open_crop(step: Mapping[str, Any], before: Window, folder: Path | None) -> EpochStep:
    """``{"name": "crop", "tmin": s, "tmax": s}``: both to the nearest sample, inclusive; null for the epoch's end."""
    check_names(step, {"tmin", "tmax"})
    tmin, tmax = (number_or_null(step, name, "give seconds from the event, or null") for name in ("tmin", "tmax"))
    last = before.first + before.n_times - 1
    start = before.first if tmin is None else max(before.first, round(tmin * before.sfreq))
    stop = last if tmax is None else min(last, round(tmax * before.sfreq))
    if start > stop:
        raise InputError(
            f"the step 'crop' keeps no sample ({step.get('tmin')} s to {step.get('tmax')} s, and the epoch goes from "
            f"{before.times[0]:g} s to {before.times[-1]:g} s): give times inside the epoch"
        )
    kept = slice(start - before.first, stop - before.first + 1)
    after = replace(before, first=start, n_times=stop - start + 1)
    return EpochStep(after=after, apply=lambda epoch: epoch[:, kept])
