"""Recordings of noise that wanders as brains and electrodes do, and the same as MNE holds them."""

from __future__ import annotations

from typing import Any

import mne
import numpy as np
import pytest
from numpy.typing import NDArray

from minddiffuser.runtime.data.layout import Channel

TYPES = ("eeg", "eeg", "eeg", "eeg", "eog", "mag", "grad", "misc")
SCALES = np.array([2e-5] * 4 + [1e-4, 1e-13, 1e-11, 1.0])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def channels() -> tuple[Channel, ...]:
    """Eight channels of five types."""
    return tuple(Channel(name=f"{kind}{row}", type=kind) for row, kind in enumerate(TYPES))


@pytest.fixture
def recording(rng: np.random.Generator) -> NDArray[np.float64]:
    """(8, 6000): white noise, a slow random walk, and an offset a thousand times larger, as electrodes have it."""
    noise = rng.standard_normal((len(TYPES), 6000))
    walk = np.cumsum(rng.standard_normal((len(TYPES), 6000)), axis=1) / 20
    offset: NDArray[np.float64] = 1000 * rng.standard_normal((len(TYPES), 1))
    return (noise + walk + offset) * SCALES[:, None]


@pytest.fixture
def as_mne(channels: tuple[Channel, ...]) -> Any:
    """A function that makes an mne.io.RawArray of samples (8, n) and their rate."""

    def make(data: NDArray[np.float64], sfreq: float) -> Any:
        info = mne.create_info([channel.name for channel in channels], sfreq, list(TYPES), verbose="error")
        return mne.io.RawArray(data, info, verbose="error")

    return make
