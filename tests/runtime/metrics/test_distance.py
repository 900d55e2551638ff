from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial import distance

from minddiffuser.runtime.metrics.distance import correlation_distance, cosine_distance, squared_distance


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (correlation_distance, distance.correlation),
        (cosine_distance, distance.cosine),
        (squared_distance, distance.sqeuclidean),
    ],
)
def test_distances_equal_scipys(ours: Callable[..., np.ndarray], theirs: Callable[..., float]) -> None:
    a, b = np.random.default_rng(0).normal(1, 2, (2, 7, 30)).astype(np.float32)
    expected = [theirs(one, other) for one, other in zip(a.astype(float), b.astype(float), strict=True)]
    np.testing.assert_allclose(ours(a, b), expected, atol=1e-12)


def test_what_is_undefined_counts_as_unrelated() -> None:
    flat, other = np.full((1, 4), 0.1, np.float32), np.arange(4, dtype=np.float32)[None]
    assert correlation_distance(flat, other).tolist() == [1.0]
    assert cosine_distance(np.zeros((1, 4)), other.astype(float)).tolist() == [1.0]
