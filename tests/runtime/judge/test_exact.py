"""Against scipy, and against all sign patterns one by one."""

import itertools

import numpy as np
import pytest

from minddiffuser.runtime.judge.exact import (
    at_least,
    binomial_p,
    clopper_pearson,
    detectable,
    guesser_passes,
    holm,
    most_rejected,
    power,
    sign_flip_p,
)

stats = pytest.importorskip("scipy.stats")
COUNTS = [(0, 1), (1, 1), (0, 2), (1, 2), (3, 5), (5, 5), (8, 17), (17, 17), (40, 100), (61, 100), (333, 999)]


@pytest.mark.parametrize(("k", "n"), COUNTS)
def test_binomial_test_and_interval_are_scipys(k: int, n: int) -> None:
    expected = stats.binomtest(k, n)
    assert binomial_p(k, n) == pytest.approx(expected.pvalue, rel=1e-9)
    for level in (0.95, 0.5):
        # scipy's root finder stops at 2e-12
        interval = expected.proportion_ci(level, "exact")
        assert clopper_pearson(k, n, level) == pytest.approx((interval.low, interval.high), abs=1e-10)


@pytest.mark.parametrize(("k", "n"), COUNTS)
@pytest.mark.parametrize("share", [0.0, 0.03, 0.5, 0.9, 1.0])
def test_tails_are_scipys(k: int, n: int, share: float) -> None:
    assert at_least(k, n, share) == pytest.approx(stats.binom.sf(k - 1, n, share), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("n", [1, 5, 6, 20, 101])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_power_is_the_probability_of_rejecting(n: int, alpha: float) -> None:
    rejected = [k for k in range(n + 1) if stats.binomtest(k, n).pvalue <= alpha]
    lower = [k for k in rejected if k <= n / 2]
    assert most_rejected(n, alpha) == (max(lower) if lower else None)
    for share in (0.5, 0.7, 0.95):
        assert power(n, share, alpha) == pytest.approx(stats.binom.pmf(rejected, n, share).sum(), rel=1e-9)
    found = detectable(n, alpha, 0.8)
    if not rejected:
        assert found is None
    else:
        assert found is not None
        assert power(n, found, alpha) == pytest.approx(0.8, abs=1e-9)


@pytest.mark.parametrize("differences", [[3], [1, -1], [1, 2, 3], [0, 0], [2, -5, 0, 1, 1, -3, 4], [2, 2, 2, 2, -2]])
def test_sign_flips_are_all_patterns(differences: list[int]) -> None:
    patterns = np.array(list(itertools.product([1, -1], repeat=len(differences)))) @ np.abs(differences)
    assert sign_flip_p(differences) == np.mean(np.abs(patterns) >= abs(sum(differences)))


@pytest.mark.parametrize(("k", "n"), COUNTS)
def test_with_one_choice_each_it_is_the_binomial_test(k: int, n: int) -> None:
    assert sign_flip_p([1] * k + [-1] * (n - k)) == binomial_p(k, n)


def test_it_rejects_as_rarely_as_it_says(rng: np.random.Generator) -> None:
    """Clusters whose choices are all the same: the test over choices is fooled, this one is not."""
    draws = [5 * rng.choice([-1, 1], 20) for _ in range(400)]
    kept_together = np.mean([sign_flip_p(draw.tolist()) <= 0.05 for draw in draws])
    apart = np.mean([binomial_p(int((draw > 0).sum()) * 5, 100) <= 0.05 for draw in draws])
    assert kept_together <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert apart > 0.2


def test_a_guesser_passes_as_often_as_the_binomial_says() -> None:
    for n, failures in ((5, 0), (10, 1), (20, 5)):
        assert guesser_passes(failures, n) == pytest.approx(stats.binom.cdf(failures, n, 0.5), rel=1e-12)
    assert guesser_passes(0, 0) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
