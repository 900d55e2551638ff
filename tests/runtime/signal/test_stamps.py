"""Where a recording is parted, and what time its samples have."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import Generator

from minddiffuser.runtime.signal.stamps import stretches

SFREQ = 250.0


def test_jitter_goes_and_time_stays(rng: Generator) -> None:
    """The line through n stamps of deviation s is off by at most 2 s / sqrt(n) at its ends, here taken four times."""
    true = 1e5 + np.arange(5000) / 250.01
    found = stretches(true + rng.normal(0, 1e-3, 5000), SFREQ)
    assert found.segments == ((0, 5000),)
    assert np.abs(found.times - true).max() < 8 * 1e-3 / np.sqrt(5000)
    assert found.sfreq == pytest.approx(250.01, abs=1e-3)


@pytest.mark.parametrize("missing", [1, 2, 30, 5000])
def test_missing_samples_part_it_and_shift_nothing(missing: int) -> None:
    true = np.arange(4000) / SFREQ
    true[1000:] += missing / SFREQ
    true[3000:] += missing / SFREQ
    found = stretches(true, SFREQ)
    assert found.segments == ((0, 1000), (1000, 3000), (3000, 4000))
    np.testing.assert_allclose(found.times, true, atol=1e-9)


def test_stamps_that_go_back_part_it() -> None:
    true = np.concatenate([100 + np.arange(500) / SFREQ, 50 + np.arange(500) / SFREQ])
    assert stretches(true, SFREQ).segments == ((0, 500), (500, 1000))


def test_bunches_of_a_wireless_device_are_one_stretch() -> None:
    stamps = np.repeat(np.arange(200) * 0.1, 25) + np.tile(np.arange(25) * 1e-4, 200)
    found = stretches(stamps, SFREQ)
    assert found.segments == ((0, 5000),)
    assert found.sfreq == pytest.approx(250.0, rel=1e-3)


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_anything(n: int) -> None:
    found = stretches(np.arange(float(n)), SFREQ)
    assert found.segments == ((0, 1),) * n
    assert found.sfreq == 0.0
