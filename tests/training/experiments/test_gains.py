"""Gains in per cent, compared: against means and a bootstrap that draws with numpy's choice."""

import numpy as np
import pytest

from minddiffuser.training.experiments.gains import gain_difference


def gain(before: np.ndarray, after: np.ndarray) -> float:
    return float(100 * (after.mean() / before.mean() - 1))


def test_two_samples(rng: np.random.Generator) -> None:
    a, b = rng.uniform(0.2, 0.4, 30), rng.uniform(0.1, 0.9, 50)
    a2, b2 = a + rng.uniform(0, 0.1, 30), b * 2
    found = gain_difference((a, a2, 1), (b, b2, 1), np.random.default_rng(0), paired=False)
    assert found.difference == pytest.approx(gain(b, b2) - gain(a, a2))
    draws = np.random.default_rng(1)
    apart = []
    for _ in range(4000):
        i, j = draws.choice(30, 30), draws.choice(50, 50)
        apart.append(gain(b[j], b2[j]) - gain(a[i], a2[i]))
    assert [found.low, found.high] == pytest.approx(np.quantile(apart, [0.025, 0.975]), abs=0.5)


def test_a_pair_draws_the_same_pictures_for_both(rng: np.random.Generator) -> None:
    before = rng.uniform(0.1, 0.9, 20)
    found = gain_difference((before, 1.2 * before, 1), (before, 1.5 * before, 1), rng, paired=True)
    assert (found.difference, found.low, found.high) == pytest.approx((30, 30, 30))


def test_a_metric_that_is_better_when_smaller(rng: np.random.Generator) -> None:
    before = np.full(5, 0.5)
    found = gain_difference((before, before, -1), (before, before - 0.1, -1), rng, paired=True)
    assert found.difference == pytest.approx(20)


def test_a_mean_of_0_makes_a_gain_uncertain_and_not_infinite(rng: np.random.Generator) -> None:
    before = np.array([-1.0, 1.0, -1.0, 1.0])
    found = gain_difference((np.ones(4), np.full(4, 1.1), 1), (before, before + 0.5, 1), rng, paired=False)
    assert np.isfinite([found.difference, found.low, found.high]).all()
    assert found.high > 100
