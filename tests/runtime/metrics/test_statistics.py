from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.metrics import statistics
from minddiffuser.runtime.metrics.statistics import paired_bootstrap, picture_means


def _stages(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    easy = rng.normal(0.5, 0.3, n)
    return easy, easy + rng.normal(0.05, 0.1, n)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_of_many_images_is_the_normal_one(level: float) -> None:
    first, second = _stages(400)
    result = paired_bootstrap(first, second, np.random.default_rng(1), level=level)
    change = second - first
    half = norm.ppf(0.5 + level / 2) * change.std() / len(change) ** 0.5
    assert result.difference == pytest.approx(change.mean())
    assert result.low == pytest.approx(change.mean() - half, abs=0.06 * half)
    assert result.high == pytest.approx(change.mean() + half, abs=0.06 * half)


def test_equals_scipy_on_a_skewed_sample() -> None:
    change = np.random.default_rng(2).exponential(size=12)
    result = paired_bootstrap(np.zeros(12), change, np.random.default_rng(3))
    expected = bootstrap((change,), np.mean, n_resamples=10_000, method="percentile", rng=4).confidence_interval
    width = expected.high - expected.low
    assert result.low == pytest.approx(expected.low, abs=0.04 * width)
    assert result.high == pytest.approx(expected.high, abs=0.04 * width)


def test_what_makes_images_hard_for_both_cancels() -> None:
    first = np.random.default_rng(0).normal(0, 100, 50)
    result = paired_bootstrap(first, first + 1, np.random.default_rng(0))
    assert (result.difference, result.low, result.high) == pytest.approx((1, 1, 1))


def test_the_same_seed_gives_the_same_interval_and_another_does_not() -> None:
    first, second = _stages(20)
    one, two, three = (paired_bootstrap(first, second, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one == two
    assert one != three


def test_chunks_do_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _stages(20)
    whole = paired_bootstrap(first, second, np.random.default_rng(5))
    monkeypatch.setattr(statistics, "_CHUNK", 333)
    assert paired_bootstrap(first, second, np.random.default_rng(5)) == whole


def test_one_image_has_no_width() -> None:
    result = paired_bootstrap(np.array([0.25]), np.array([0.75]), np.random.default_rng(0))
    assert (result.difference, result.low, result.high) == (0.5, 0.5, 0.5)


def test_bad_values_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ShapeError, match="same trials"):
        paired_bootstrap(np.zeros(3), np.zeros(4), rng)
    with pytest.raises(ShapeError, match="same trials"):
        paired_bootstrap(np.zeros(0), np.zeros(0), rng)
    with pytest.raises(InputError, match="NaN"):
        paired_bootstrap(np.zeros(2), np.array([0, np.nan]), rng)
    for settings in ({"n_resamples": 0}, {"level": 1.0}):
        with pytest.raises(InputError, match="bootstrap"):
            paired_bootstrap(np.zeros(3), np.zeros(3), rng, **settings)


def test_pictures_are_drawn_not_trials() -> None:
    """Against scipy's bootstrap of the pictures' means, worked out in a loop."""
    rng = np.random.default_rng(7)
    ids = [f"picture {number}" for number in (0, 1, 1, 2, 3, 3, 3, 4, 5, 6, 6, 7)]
    change = rng.exponential(size=12)
    by_hand = np.array(
        [np.mean([c for c, i in zip(change, ids, strict=True) if i == name]) for name in sorted(set(ids))]
    )
    np.testing.assert_allclose(picture_means(change, ids), by_hand)
    result = paired_bootstrap(np.zeros(12), change, np.random.default_rng(3), stimulus_ids=ids)
    expected = bootstrap((by_hand,), np.mean, n_resamples=10_000, method="percentile", rng=4).confidence_interval
    width = expected.high - expected.low
    assert result.difference == pytest.approx(by_hand.mean())
    assert result.low == pytest.approx(expected.low, abs=0.04 * width)
    assert result.high == pytest.approx(expected.high, abs=0.04 * width)


def test_one_picture_has_no_width_however_often_it_was_shown() -> None:
    result = paired_bootstrap(np.zeros(4), np.arange(4.0), np.random.default_rng(0), stimulus_ids=["p"] * 4)
    assert (result.difference, result.low, result.high) == (1.5, 1.5, 1.5)
