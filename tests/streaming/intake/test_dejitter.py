"""The line through a stretch's stamps, against least squares over the whole of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minddiffuser.streaming.intake.dejitter import Timeline

PERIOD = 0.004


def followed(stamps: np.ndarray, cuts: list[int]) -> list[float]:
    line = Timeline(PERIOD, len(stamps))
    edges = [0, *sorted(cuts), len(stamps)]
    for start, stop in zip(edges, edges[1:], strict=False):
        assert line.extend(stamps[start:stop], 1.0, back=True) == stop - start
    return [line.time(sample) for sample in range(len(stamps))]  # type: ignore[misc]


@given(cuts=st.lists(st.integers(0, 500), max_size=20))
def test_any_cut_gives_the_same_bits(cuts: list[int]) -> None:
    stamps = 1e5 + np.arange(500) * PERIOD + np.random.default_rng(0).normal(0, 0.002, 500)
    assert followed(stamps, cuts) == followed(stamps, [])


@pytest.mark.parametrize("rate", [250.0, 250.7, 248.5])
def test_regular_stamps_stay_as_they_are(rate: float) -> None:
    """To a hundredth of a sample, while the rate is being found; 0.6 % off is 1.5 samples a second."""
    stamps = 1e5 + np.arange(5000) / rate
    found = np.array(followed(stamps, []))
    assert np.abs(found - stamps).max() < 0.25 * PERIOD
    assert np.abs(found - stamps)[1000:].max() < 0.01 * PERIOD


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_jitter_is_smoothed_nearly_as_by_least_squares(seed: int) -> None:
    """After 5 s of 250 Hz the line is known to a tenth of a jitter of two samples."""
    number, jitter = np.arange(2500), 0.008
    stamps = 1e5 + number / 250.05 + np.random.default_rng(seed).normal(0, jitter, 2500)
    found = np.array(followed(stamps, []))
    line = np.polyval(np.polyfit(number, stamps - 1e5, 1), number) + 1e5
    assert np.abs(found - line)[1250:].max() < 0.2 * jitter
    assert (np.diff(found) >= 0).all()


def test_a_stamp_off_the_line_is_not_taken() -> None:
    line = Timeline(PERIOD, 100)
    stamps = 5 + np.arange(50) * PERIOD
    stamps[30:] += 0.5
    assert line.extend(stamps, 0.003) == 30
    assert line.n == 30
    assert line.off(stamps[30]) == pytest.approx(0.5, abs=1e-9)
    assert line.extend(stamps[29:30], 0.01) == 0  # not later than the last one
    assert line.extend(np.array([np.nan]), 0.003) == 0


def test_the_nearest_sample_and_what_is_no_longer_held() -> None:
    line = Timeline(1.0, 10)
    line.extend(np.arange(25.0), 0.5)
    assert [line.nearest(time) for time in (14.9, 15.0, 15.5, 15.51, 24.0, 99.0)] == [None, 15, 15, 16, 24, 24]
    assert (line.time(15), line.time(14), line.time(25)) == (15.0, None, None)


def test_the_jitter_is_how_far_stamps_fall_back() -> None:
    line = Timeline(1.0, 100, learns=40)
    stamps = np.arange(50.0)
    stamps[20:] += 0.2  # lost time is no jitter
    stamps[[5, 30]] += 0.1
    stamps[45] += 0.3  # behind what is looked at
    line.extend(stamps, 0.5)
    assert line.jitter == pytest.approx(0.1)


@pytest.mark.parametrize("jitter", [0.0, 0.008])
@pytest.mark.parametrize("off", [-0.01, -0.005, -0.001, 0.0, 0.001, 0.005, 0.01])
def test_a_rate_that_is_off_is_no_jitter(off: float, jitter: float, rng: np.random.Generator) -> None:
    """Against the jitter that was put in, on packets of 10 samples; 1 % of 2 s would be 20 ms."""
    number = np.arange(500)
    late = np.repeat(rng.uniform(0, jitter, 50), 10)
    line = Timeline(PERIOD, 600, learns=500)
    line.extend(1e5 + number * PERIOD * (1 + off) + late, 0.25, back=True)
    true = (np.maximum.accumulate(late) - late).max()
    assert line.jitter == pytest.approx(true, rel=0.2, abs=1e-6)


@pytest.mark.parametrize("off", [-0.005, 0.0, 0.005])
def test_samples_that_are_lost_while_it_is_measured_are_no_jitter(off: float, rng: np.random.Generator) -> None:
    """Three samples are missing, of stamps that jitter by 1 ms: less than half a sample more is left to a gap."""
    number = np.arange(500) + (np.arange(500) > 170) + 2 * (np.arange(500) > 400)
    line = Timeline(PERIOD, 600, learns=500)
    line.extend(1e5 + number * PERIOD * (1 + off) + rng.uniform(0, 0.001, 500), 0.25, back=True)
    assert line.jitter < 0.001 + PERIOD / 2
