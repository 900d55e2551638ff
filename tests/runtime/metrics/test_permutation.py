"""Against scipy's permutation tests where all permutations are taken, and against what must hold elsewhere."""

from math import factorial

import numpy as np
import pytest
from scipy.stats import permutation_test

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.metrics.permutation import groups_of, mean_of_others, pairing_test, sign_flip_test


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("gain", [0.0, 1.0, -1.0])
def test_all_pairings_are_scipys(rng: np.random.Generator, gain: float, better: str) -> None:
    values = rng.normal(size=(5, 5)) + gain * np.eye(5)
    numbers = np.arange(5)
    expected = permutation_test(
        (numbers,),
        lambda stimulus: values[stimulus.astype(int), numbers].mean(),
        permutation_type="pairings",
        alternative="greater" if better == "higher" else "less",
        n_resamples=np.inf,
    )
    found = pairing_test([values], rng, better=better)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)
    assert (found.n_permutations, found.exact) == (120, True)


def test_pairings_within_groups_are_all_products(rng: np.random.Generator) -> None:
    groups = [rng.normal(size=(3, 3)) + 0.5 * np.eye(3), rng.normal(size=(2, 2))]
    from itertools import permutations

    sums = [
        sum(groups[0][i, j] for j, i in enumerate(one)) + sum(groups[1][i, j] for j, i in enumerate(other))
        for one in permutations(range(3))
        for other in permutations(range(2))
    ]
    expected = np.mean(np.array(sums) >= np.trace(groups[0]) + np.trace(groups[1]) - 1e-9)
    found = pairing_test(groups, rng)
    assert found.p_value == pytest.approx(expected)
    assert found.n_permutations == factorial(3) * factorial(2)


@pytest.mark.parametrize("n", [2, 3, 7])
@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_all_flips_are_scipys(rng: np.random.Generator, n: int, shift: float) -> None:
    first, second = rng.normal(size=n), rng.normal(size=n) + shift
    expected = permutation_test(
        (second, first), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    )
    found = sign_flip_test(second - first, rng)
    assert found.p_value == pytest.approx(min(expected.pvalue, 1.0), abs=1e-12)
    assert (found.n_permutations, found.exact) == (2**n, True)


def test_drawn_ones_come_near_all(rng: np.random.Generator) -> None:
    values, differences = rng.normal(size=(6, 6)) + 0.4 * np.eye(6), rng.normal(size=10) + 0.3
    for test, data in ((pairing_test, [values]), (sign_flip_test, differences)):
        every = test(data, np.random.default_rng(0))
        drawn = [test(data, np.random.default_rng(seed), n_permutations=500) for seed in (1, 1, 2)]
        assert every.exact
        assert not drawn[0].exact
        assert drawn[0] == drawn[1]
        for one in drawn:  # four standard errors of a share
            assert abs(one.p_value - every.p_value) < 4 * (every.p_value / 500) ** 0.5 + 1 / 501
            assert 501 * one.p_value == pytest.approx(round(501 * one.p_value))


def test_nothing_is_found_as_often_as_it_may(rng: np.random.Generator) -> None:
    """Two-way identification of noise: values hang together, and still one p-value in five is at most 0.2."""
    p_values = []
    for _ in range(200):
        similar = rng.normal(size=(5, 5)) + rng.normal(size=(1, 5))  # some pictures are like everything
        ranks = similar.argsort(axis=0).argsort(axis=0) / 4
        p_values.append(pairing_test([ranks], rng).p_value)
    assert np.mean(np.array(p_values) <= 0.2) < 0.2 + 3 * (0.16 / 200) ** 0.5
    assert np.mean(np.array(p_values) <= 0.6) > 0.3


def test_a_tie_but_for_rounding_counts_as_one() -> None:
    values = np.full((4, 4), 0.1) + np.array([0, 1e-17, 2e-17, 0])
    assert pairing_test([values], np.random.default_rng(0)).p_value == 1
    assert sign_flip_test(np.array([0.1, 0.2, -0.3]), np.random.default_rng(0)).p_value == 1


def test_groups_are_even_and_hold_everybody_once(rng: np.random.Generator) -> None:
    for n in (1, 2, 10, 11, 25, 982):
        groups = groups_of(n, rng)
        assert sorted(np.concatenate(groups).tolist()) == list(range(n))
        sizes = {len(group) for group in groups}
        assert max(sizes) <= 10
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= min(n, 5)
        assert all((np.diff(group) > 0).all() for group in groups)


def test_the_mean_of_others_leaves_the_pairs_out() -> None:
    assert mean_of_others([np.array([[9.0, 1.0], [2.0, 9.0]]), np.array([[9.0, 3.0], [6.0, 9.0]])]) == 3
    assert mean_of_others([np.ones((1, 1))]) is None


def test_what_is_no_square_or_not_finite_is_refused(rng: np.random.Generator) -> None:
    for bad in ([np.ones((2, 3))], [np.ones(3)], [np.ones((0, 0))]):
        with pytest.raises(ShapeError, match="give"):
            pairing_test(bad, rng)
    with pytest.raises(InputError, match="NaN"):
        pairing_test([np.full((2, 2), np.nan)], rng)
    with pytest.raises(InputError, match="'higher' or 'lower'"):
        pairing_test([np.ones((2, 2))], rng, better="best")
    with pytest.raises(InputError, match="at least 1"):
        pairing_test([], rng)
    with pytest.raises(ShapeError, match="one per picture"):
        sign_flip_test(np.ones((2, 2)), rng)
    with pytest.raises(InputError, match="NaN"):
        sign_flip_test(np.array([1.0, np.inf]), rng)
    for test, data in ((pairing_test, [np.ones((2, 2))]), (sign_flip_test, np.ones(2))):
        with pytest.raises(InputError, match="at least 1"):
            test(data, rng, n_permutations=0)
