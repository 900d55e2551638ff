from __future__ import annotations

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.metrics import identification
from minddiffuser.runtime.metrics.identification import two_way


def _naive(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    n = len(truth)
    rates = np.zeros(n)
    for j in range(n):
        own = np.corrcoef(truth[j], prediction[j])[0, 1]
        rates[j] = sum(np.corrcoef(truth[i], prediction[j])[0, 1] < own for i in range(n) if i != j) / (n - 1)
    return rates


def _features(n: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, 12)) + 3
    return truth.astype(np.float32), (truth + noise * rng.normal(size=truth.shape)).astype(np.float32)


@pytest.mark.parametrize("n", [2, 23])
@pytest.mark.parametrize("noise", [0.5, 3.0])
def test_equals_the_double_loop(n: int, noise: float) -> None:
    truth, prediction = _features(n, noise, seed=n)
    np.testing.assert_allclose(two_way(truth, prediction), _naive(truth, prediction), atol=1e-12)


def test_the_mean_equals_the_published_code() -> None:
    """MindEye's form: one correlation matrix of both sets, success counted down its columns."""
    truth, prediction = _features(17, 2.0, seed=5)
    matrix = np.corrcoef(truth, prediction)[: len(truth), len(truth) :]
    published = np.mean((matrix < np.diag(matrix)).sum(axis=0)) / (len(truth) - 1)
    assert two_way(truth, prediction).mean() == pytest.approx(published)
    assert 0.5 < published < 1


def test_each_prediction_is_compared_with_the_other_truths() -> None:
    """Three predictions like the first truth: the other direction would give another answer."""
    truth = np.eye(3, 8) + 0.01 * np.random.default_rng(0).normal(size=(3, 8))
    prediction = np.repeat(truth[:1], 3, axis=0)
    rates = two_way(truth, prediction)
    assert rates[0] == 1
    np.testing.assert_allclose(rates, _naive(truth, prediction))
    assert rates[1:].max() <= 0.5


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, prediction = _features(23, 2.0, seed=1)
    whole = two_way(truth, prediction)
    monkeypatch.setattr(identification, "_BLOCK", 5)
    np.testing.assert_array_equal(two_way(truth, prediction), whole)


def test_a_tie_is_no_success() -> None:
    truth, _ = _features(4, 0, seed=2)
    truth[1] = truth[0]
    assert two_way(truth, truth).tolist() == pytest.approx([2 / 3, 2 / 3, 1, 1])


def test_a_constant_prediction_never_wins() -> None:
    truth, prediction = _features(6, 0, seed=3)
    prediction[2] = 0.1
    assert two_way(truth, prediction).tolist() == [1, 1, 0, 1, 1, 1]


def test_chance_is_one_half() -> None:
    rng = np.random.default_rng(4)
    rates = two_way(rng.normal(size=(300, 20)), rng.normal(size=(300, 20)))
    assert rates.mean() == pytest.approx(0.5, abs=0.06)


def test_what_cannot_be_compared_is_refused() -> None:
    truth, prediction = _features(5, 1, seed=0)
    with pytest.raises(InputError, match="at least 2"):
        two_way(truth[:1], prediction[:1])
    with pytest.raises(ShapeError, match="expected the same"):
        two_way(truth, prediction[:, :5])
    prediction[3, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        two_way(truth, prediction)
