"""Samples at the border of the chain: their shape, and that they are numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError, ShapeError
from .stage import Array, Continuous


def checked_samples(data: ArrayLike, signal: Continuous, first: int = 0) -> Array:
    """The samples as (n_channels, n) float64.

    Parameters
    ----------
    data
        (n_channels, n), any real type.
    signal
        What they have to be.
    first
        The number of the first sample, for messages.

    Raises
    ------
    ShapeError
        Another number of channels or axes.
    InputError
        A value is NaN or infinite: a filter would carry it on for ever.
    """
    samples = np.asarray(data)
    n_channels = len(signal.channels)
    if samples.ndim != 2 or len(samples) != n_channels or samples.dtype.kind not in "iuf":
        turned = samples.ndim == 2 and samples.shape[1] == n_channels
        cure = "transpose them" if turned else "give the channels that the chain was opened for"
        raise ShapeError(
            f"the samples are {samples.dtype} {samples.shape}, expected ({n_channels} channels, n) real numbers: {cure}"
        )
    samples = samples.astype(np.float64, copy=False)
    if not np.isfinite(samples).all():
        row, column = np.argwhere(~np.isfinite(samples))[0]
        raise InputError(
            f"channel {signal.channels[row].name} is {samples[row, column]} at sample {first + column} "
            f"({(first + column) / signal.sfreq:.3f} s): leave the channel or that part of the recording out"
        )
    return samples
