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
