"""The chains of data sets that many prepare: THINGS-EEG2 in the two forms that are in use, and THINGS-MEG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import check_choice
from .filters import design_filter

_L_FREQ, _H_FREQ = 0.1, 100.0
MEG_RATE = 200.0
_MEG_H_FREQ = 40.0
# What a low-pass may be at most, as a share of the new rate, so that decimation is safe: forward and backward the
# filter falls off twice as fast.
_MOST = {False: 0.4, True: 0.35}
_BASELINE_FROM = -0.2
# Name of a window -> the first and the last sample in seconds, and the rate in Hz.
WINDOWS: dict[str, tuple[float, float, float]] = {"gifford": (-0.2, 0.79, 100.0), "nice": (0.0, 0.996, 250.0)}


def posterior(names: Sequence[str]) -> list[str]:
    """The occipital and parietal channels, in their order: those that begin with O or P, 17 of the 63."""
    return [name for name in names if name[:1] in ("O", "P")]


def eeg2_chain(window: str, sfreq: float, *, causal: bool) -> dict[str, Any]:
    """The chain from a recording to epochs, without whitening.

    Parameters
    ----------
    window
        "gifford": -0.2 to 0.8 s at 100 Hz, 100 samples (Gifford et al. 2022). "nice": 0 to 1 s at 250 Hz, 250 samples
        (Song et al. 2024, ATM). Both with a baseline of 200 ms before the picture.
    sfreq
        Samples per second of the recording; 1000 in the published files.
    causal
        Filter forward only, so that the chain can run live.

    Returns
    -------
    dict
        Band-pass from 0.1 Hz to 100 Hz, or to the highest frequency that the new rate takes without aliasing, if that
        is lower; epochs, baseline, every k-th sample.
    """
    check_choice("window", window, WINDOWS)
    first, last, rate = WINDOWS[window]
    factor = max(1, round(sfreq / rate))
    h_freq = min(_H_FREQ, _MOST[causal] * sfreq / factor)
    steps: list[dict[str, Any]] = [
        *design_filter(sfreq, _L_FREQ, h_freq, causal=causal),
        {"name": "epoch", "tmin": _BASELINE_FROM, "tmax": last},
        {"name": "baseline", "tmin": None, "tmax": 0.0},
    ]
    if factor > 1:
        steps.append({"name": "decimate", "factor": factor})
    if first > _BASELINE_FROM:
        steps.append({"name": "crop", "tmin": first, "tmax": None})
    return {"steps": steps}


def meg_chain(
    sfreq: float,
    *,
    causal: bool,
    epoch: tuple[float, float] = (-0.1, 1.0),
    kept: tuple[float, float] | None = (0.0, 1.0),
) -> dict[str, Any]:
    """The chain of THINGS-MEG (Hebart et al. 2023): 0.1 to 40 Hz, z-scored by the time before the picture, at 200 Hz.

    Parameters
    ----------
    sfreq
        Samples per second of the recording; 1200 in the published files.
    causal
        Filter forward only, so that the chain can run live.
    epoch
        First and last sample in seconds; the z-score takes mean and spread up to 0 s.
    kept
        What is cut out of it in the end, both inclusive; None for all.
    """
    factor = max(1, round(sfreq / MEG_RATE))
    steps: list[dict[str, Any]] = [
        *design_filter(sfreq, _L_FREQ, _MEG_H_FREQ, causal=causal),
        {"name": "epoch", "tmin": epoch[0], "tmax": epoch[1]},
        {"name": "zscore", "tmin": None, "tmax": 0.0},
    ]
    if factor > 1:
        steps.append({"name": "decimate", "factor": factor})
    if kept is not None:
        steps.append({"name": "crop", "tmin": kept[0], "tmax": kept[1]})
    return {"steps": steps}
