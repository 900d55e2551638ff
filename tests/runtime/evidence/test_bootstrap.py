"""Resampled means against the variances that theory gives them, and against the intervals of summary.json."""

from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.evidence.bootstrap import aligned, of_runs, over_pictures, over_seeds
from minddiffuser.runtime.metrics.compare import differences

SEED = 3


def together(runs: list[np.ndarray], *, shared: bool) -> np.ndarray:
    """Of the same pictures, or each of its own."""
    return aligned(
        [([f"{0 if shared else run} {n}" for n in range(row.shape[1])], row) for run, row in enumerate(runs)]
    )


def test_differences_are_those_of_the_runs_summary() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 17))
    draws = over_pictures(values, SEED)
    found = differences({"m": values[0]}, {"m": values[2]}, np.random.default_rng(SEED))["m"]
    np.testing.assert_allclose(np.quantile(draws[2] - draws[0], [0.025, 0.975]), found["ci95"], rtol=1e-12)


def test_their_spread_is_the_standard_error() -> None:
    values = np.random.default_rng(1).standard_normal((2, 50)) * [[1.0], [3.0]]
    draws = over_pictures(values, SEED)
    np.testing.assert_allclose(draws.std(axis=1), values.std(axis=1) / 50**0.5, rtol=0.05)
    np.testing.assert_allclose(draws.mean(axis=1), values.mean(axis=1), atol=0.02)


@pytest.mark.parametrize("shared", [True, False])
def test_runs_that_stay_do_not_vary(shared: bool) -> None:
    """Runs differ by a constant: drawing pictures alone, it makes no difference to the spread."""
    pictures = np.random.default_rng(2).standard_normal(40)
    runs = [np.stack([pictures, pictures + 1]) + offset for offset in (0.0, 5.0, 10.0)]
    draws = of_runs(together(runs, shared=shared), SEED)
    expected = pictures.std() / 40**0.5 / (1.0 if shared else 3**0.5)  # the same pictures in all, or others
    np.testing.assert_allclose(draws.std(axis=1), expected, rtol=0.05)
    np.testing.assert_allclose(draws[1] - draws[0], 1.0)  # kinds are drawn together


@pytest.mark.parametrize("shared", [True, False])
def test_seeds_and_pictures_both_vary(shared: bool) -> None:
    """With value = run + picture, the variance is that of the runs' mean plus that of the pictures' mean."""
    rng = np.random.default_rng(4)
    n_runs, n = 8, 60
    offsets, common = rng.standard_normal(n_runs), rng.standard_normal(n)
    own = [common if shared else rng.standard_normal(n) for _ in range(n_runs)]
    runs = [np.stack([row + offset, -row]) for row, offset in zip(own, offsets, strict=True)]
    draws = over_seeds(together(runs, shared=shared), SEED)
    of_pictures = common.var() / n if shared else np.mean([row.var() for row in own]) / n / n_runs
    of_means = np.var([run[0].mean() for run in runs])
    assert draws[0].std() == pytest.approx((of_means / n_runs + of_pictures) ** 0.5, rel=0.05)
    # Pictures that all runs share are crossed with them: their variance does not fall with the number of runs.
    if shared:
        assert draws[1].std() == pytest.approx(common.std() / n**0.5, rel=0.05)


def test_the_same_seed_draws_the_same(rng: np.random.Generator) -> None:
    runs = [rng.standard_normal((2, 6)) for _ in range(3)]
    for shared in (True, False):
        every = together(runs, shared=shared)
        one, two = (over_seeds(every, 1, n_resamples=50) for _ in range(2))
        np.testing.assert_array_equal(one, two)
        assert (over_seeds(every, 2, n_resamples=50) != one).any()


def test_runs_are_put_in_one_order_of_all_their_pictures() -> None:
    every = aligned([(["a", "b"], np.array([[1.0, 2.0]])), (["c", "a"], np.array([[4.0, 3.0]]))])
    np.testing.assert_array_equal(every, [[[1.0, 2.0, np.nan]], [[3.0, np.nan, 4.0]]])


@pytest.mark.parametrize("draw", [of_runs, over_seeds])
def test_a_picture_that_one_run_lacks_does_not_make_the_others_independent(draw: Any) -> None:
    """Four equal runs, of which each lost one picture: the spread stays that of the pictures of one run."""
    n, row = 50, np.random.default_rng(5).standard_normal(50)
    names = [str(number) for number in range(n)]
    kept = [np.arange(n) != lost for lost in range(4)]
    every = aligned([([names[k] for k in np.flatnonzero(here)], np.stack([row[here], row[here] + 1])) for here in kept])
    draws = draw(every, SEED)
    assert draws[0].std() == pytest.approx(row.std() / n**0.5, rel=0.05)
    np.testing.assert_allclose(draws[1] - draws[0], 1.0)


def test_no_draw_leaves_a_run_without_a_picture() -> None:
    every = together([np.full((1, 2), float(run)) for run in range(4)], shared=False)
    np.testing.assert_allclose(of_runs(every, SEED, n_resamples=500), 1.5)
