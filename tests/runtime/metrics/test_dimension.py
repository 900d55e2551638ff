import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.metrics.dimension import participation_ratio


def test_k_equal_directions_are_k() -> None:
    """Pictures at the ends of k orthogonal axes."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 4)))[0].T
    features = np.concatenate([basis, -basis]) + 5
    assert participation_ratio(features) == pytest.approx(4)


def test_it_is_that_of_the_covariances_eigenvalues() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(30, 8)) @ np.diag([5, 3, 2, 1, 1, 0.5, 0.1, 0.1])
    values = np.linalg.eigvalsh(np.cov(features.T))
    assert participation_ratio(features) == pytest.approx(values.sum() ** 2 / (values**2).sum())


def test_trials_of_one_picture_count_once() -> None:
    rng = np.random.default_rng(2)
    features, noise = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    twice = np.concatenate([features + noise, features - noise])
    assert participation_ratio(twice, list("abcdef") * 2) == pytest.approx(participation_ratio(features))


def test_what_has_no_dimension_is_refused() -> None:
    with pytest.raises(InputError, match="do not vary"):
        participation_ratio(np.ones((3, 4)))
    with pytest.raises(InputError, match="at least 2 pictures"):
        participation_ratio(np.ones((3, 4)), ["a"] * 3)
