"""Pattern correlations, against numpy's."""

import numpy as np

from minddiffuser.training.experiments.decoding import own_and_others


def test_own_and_other_patterns(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((5, 30)), rng.standard_normal((5, 30))
    own, others = own_and_others(a, b)
    table = np.corrcoef(a, b)[:5, 5:]
    np.testing.assert_allclose(own, np.diag(table))
    np.testing.assert_allclose(others, [(table[k].sum() - table[k, k]) / 4 for k in range(5)])


def test_one_trial_has_no_others(rng: np.random.Generator) -> None:
    own, others = own_and_others(*(rng.standard_normal((2, 1, 30))))
    assert own.shape == (1,)
    assert others.tolist() == [0.0]


def test_another_trial_of_the_same_picture_is_no_chance(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((4, 30)), rng.standard_normal((4, 30))
    table = np.corrcoef(a, b)[:4, 4:]
    own, others = own_and_others(a, b, ["x", "y", "x", "z"])
    np.testing.assert_allclose(own, np.diag(table))
    np.testing.assert_allclose(others[0], (table[0, 1] + table[0, 3]) / 2)
    np.testing.assert_allclose(others[2], (table[2, 1] + table[2, 3]) / 2)
    np.testing.assert_allclose(others[1], (table[1, 0] + table[1, 2] + table[1, 3]) / 3)
