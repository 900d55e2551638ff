import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.metrics.retrieval import n_nearer, top_of


def test_nearer_ones_are_what_a_loop_counts() -> None:
    rng = np.random.default_rng(0)
    true, ids = rng.normal(size=(12, 5)).astype(np.float32), list("abcdefghijab")
    true[10:] = true[:2]
    decoded = (true + rng.normal(size=true.shape)).astype(np.float32)
    found = n_nearer(true, decoded, ids)
    for trial in range(12):
        cosines = [
            float(decoded[trial] @ true[i] / np.linalg.norm(decoded[trial]) / np.linalg.norm(true[i]))
            for i in range(12)
        ]
        assert found[trial] == sum(cosines[i] > cosines[trial] for i in range(10) if ids[i] != ids[trial])
    assert 0 < found.max() < 10


def test_a_tie_is_not_a_success() -> None:
    true = np.ones((4, 3), np.float32)
    assert n_nearer(true, true).tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize(("pool", "k"), [(5, 1), (5, 2), (20, 5), (12, 12)])
def test_the_mean_over_pools_is_what_many_draws_approach(pool: int, k: int) -> None:
    n, rng = 20, np.random.default_rng(pool)
    nearer = np.array([0, 1, 3, 8, 19])
    exact = top_of(nearer, n, pool, k)
    # Others are numbered by nearness: the first `r` of them are nearer than the own picture.
    draws = np.argsort(rng.random((20_000, n - 1)), axis=1)[:, : pool - 1]
    drawn = [((draws < r).sum(axis=1) < k).mean() for r in nearer]
    # Four standard errors of a share of 20,000 draws are at most 0.0142.
    np.testing.assert_allclose(exact, drawn, atol=0.0142)
    if k == pool:
        assert exact.tolist() == [1.0] * 5


def test_chance_is_k_of_pool() -> None:
    """With every rank equally likely."""
    assert top_of(np.arange(300), 300, 50, 5).mean() == pytest.approx(0.1)
    assert top_of(np.arange(300), 300, 300, 1).mean() == pytest.approx(1 / 300)


@pytest.mark.parametrize(("pictures", "pool", "k"), [(10, 11, 1), (10, 5, 6), (10, 5, 0)])
def test_numbers_that_do_not_go_together(pictures: int, pool: int, k: int) -> None:
    with pytest.raises(InputError, match="give 1 <= k <= pool"):
        top_of(np.array([0]), pictures, pool, k)


def test_a_single_picture_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 different pictures"):
        n_nearer(np.ones((2, 3)), np.ones((2, 3)), ["a", "a"])
