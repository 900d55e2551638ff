import numpy as np
import pytest

from minddiffuser.runtime.metrics import identification
from minddiffuser.runtime.metrics.near_pair import near_pair


def sample(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    ids = [str(number) for number in rng.integers(0, n // 2, n)]
    of = {name: rng.normal(size=6).astype(np.float32) for name in ids}
    true = np.stack([of[name] for name in ids])
    return true, true + rng.normal(0, 1.2, true.shape).astype(np.float32), ids


def corr(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_it_is_what_a_loop_says() -> None:
    true, found, ids = sample(0)
    expected = []
    for trial, name in enumerate(ids):
        others = [row for row in range(len(ids)) if ids[row] != name]
        nearest = max(others, key=lambda row: corr(true[trial], true[row]))
        expected.append(float(corr(found[trial], true[trial]) > corr(found[trial], true[nearest])))
    assert near_pair(true, found, ids).tolist() == expected
    assert 0 < np.mean(expected) < 1


def test_blocks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    true, found, ids = sample(1)
    whole = near_pair(true, found, ids), identification.two_way(true, found, ids)
    takagi = identification.originals_two_way(true, found, ids)
    monkeypatch.setattr(identification, "_MOST", 6 * 7)  # 7 rows at a time
    np.testing.assert_array_equal(near_pair(true, found, ids), whole[0])
    np.testing.assert_allclose(identification.two_way(true, found, ids), whole[1], atol=1e-12)
    np.testing.assert_allclose(identification.originals_two_way(true, found, ids), takagi, atol=1e-12)


def test_chance_is_a_half() -> None:
    rng = np.random.default_rng(3)
    true, found = rng.normal(size=(2, 2000, 6))
    # Five standard errors of a share of 2,000.
    assert abs(near_pair(true, found).mean() - 0.5) < 5 * 0.5 / 2000**0.5
