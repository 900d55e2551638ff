from __future__ import annotations

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError, ShapeError
from minddiffuser.runtime.metrics import identification
from minddiffuser.runtime.metrics.identification import originals_two_way, two_way


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


def _by_picture(truth: np.ndarray, prediction: np.ndarray, ids: list[str]) -> np.ndarray:
    """The definition in words, in loops: of the other pictures, how many are further from the prediction."""
    rates = []
    for j, own_id in enumerate(ids):
        own = np.corrcoef(truth[j], prediction[j])[0, 1]
        others = {name: truth[ids.index(name)] for name in ids if name != own_id}
        rates.append(np.mean([np.corrcoef(other, prediction[j])[0, 1] < own for other in others.values()]))
    return np.array(rates)


def test_perfect_predictions_of_repeated_pictures_are_perfect() -> None:
    """2 pictures x 3 trials: by trials the same would get 3 of 5, as the repeats are no less close."""
    truth = np.repeat(_features(2, 0, seed=6)[0], 3, axis=0)
    assert two_way(truth, truth, list("aaabbb")).tolist() == [1.0] * 6
    np.testing.assert_allclose(two_way(truth, truth), 0.6)


@pytest.mark.parametrize("noise", [0.5, 3.0])
@pytest.mark.parametrize("ids", [list("abacabcadd"), list("aaaaaaaaab"), list("abcdefghij")])
def test_repeated_pictures_equal_the_double_loop(ids: list[str], noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, _ = _features(10, 0, seed=8)
    truth = pictures[[ids.index(name) for name in ids]]
    prediction = truth + noise * np.random.default_rng(9).normal(size=truth.shape)
    expected = _by_picture(truth, prediction, ids)
    np.testing.assert_allclose(two_way(truth, prediction, ids), expected, atol=1e-12)
    monkeypatch.setattr(identification, "_BLOCK", 3)
    np.testing.assert_allclose(two_way(truth, prediction, ids), expected, atol=1e-12)


def test_a_single_picture_or_a_wrong_number_of_ids_is_refused() -> None:
    truth, prediction = _features(3, 1, seed=0)
    with pytest.raises(InputError, match=r"3 trial\(s\) of 1 picture"):
        two_way(truth, prediction, list("aaa"))
    with pytest.raises(ShapeError, match="2 stimulus ids for 3 trials"):
        two_way(truth, prediction, list("ab"))


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


def test_originals_equal_the_published_code() -> None:
    """Takagi and Nishimoto's form: for each original, its own reconstructions against all others', averaged first."""
    rng = np.random.default_rng(8)
    truth = rng.normal(size=(9, 12))
    several = truth[:, None] + 2.0 * rng.normal(size=(9, 3, 12))
    r = np.array([[[np.corrcoef(one, made)[0, 1] for made in of] for of in several] for one in truth])
    accuracy = [np.mean([r[i, i].mean() > r[i, j].mean() for j in range(9) if j != i]) for i in range(9)]
    ids = [str(i) for i in range(9) for _ in range(3)]
    found = originals_two_way(truth.repeat(3, axis=0), several.reshape(27, 12), ids)
    np.testing.assert_allclose(found, np.repeat(accuracy, 3), atol=1e-12)
    assert 0.5 < np.mean(accuracy) < 1


def test_the_two_directions_differ() -> None:
    truth, prediction = _features(23, 2.0, seed=3)
    assert (two_way(truth, prediction) != originals_two_way(truth, prediction)).any()
