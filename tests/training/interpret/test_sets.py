"""Means of sets of voxels against the formulas of sampling with and without replacement."""

import numpy as np
import pytest

from minddiffuser.training.interpret.sets import interval, random_set_means, resampled_means


def test_resampled_means_have_the_standard_error(rng: np.random.Generator) -> None:
    values = rng.standard_normal((60, 2)) * [1.0, 3.0] + [0.0, 5.0]
    means = resampled_means(values, rng)
    np.testing.assert_allclose(means.mean(axis=0), values.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(means.std(axis=0), values.std(axis=0) / 60**0.5, rtol=0.1)
    low, high = interval(means)
    np.testing.assert_allclose(high - low, 2 * 1.96 * values.std(axis=0) / 60**0.5, rtol=0.15)


def test_random_sets_are_as_large_in_each_subject_and_hold_no_voxel_twice(rng: np.random.Generator) -> None:
    values = np.concatenate([rng.random((30, 1)), 100 + rng.random((50, 1))])
    subject = np.repeat([0, 1], [30, 50])
    chosen = np.zeros(80, bool)
    chosen[[*range(6), *range(30, 44)]] = True
    means = random_set_means(values, subject, chosen, rng)[:, 0]
    assert means.min() > 70 - 1
    assert means.max() < 70 + 1
    # The variance of a mean of n of N without replacement is (1 - n / N) s^2 / n.
    parts = [(6, values[:30]), (14, values[30:])]
    variance = sum((n / 20) ** 2 * (1 - n / len(v)) * v.var(ddof=1) / n for n, v in parts)
    assert means.std() == pytest.approx(variance**0.5, rel=0.1)
    whole = random_set_means(values, subject, np.ones(80, bool), rng)
    np.testing.assert_allclose(whole, values.mean())
