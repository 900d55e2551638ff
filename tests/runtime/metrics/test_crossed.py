"""What a picture would be worth as one of another stimulus, against the metric itself with the stimuli exchanged."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from minddiffuser.runtime.metrics import METRICS, Metric
from minddiffuser.runtime.metrics.crossed import FASTER, cross_features, cross_pairs, mean_columns
from minddiffuser.runtime.metrics.extractors import EXTRACTORS

N, WIDTH = 7, 12
WHICH = np.array([0, 1, 1, 2, 3, 3, 3, 4, 5, 6])  # some stimuli have several pictures
GROUPS = (np.array([0, 3, 5]), np.array([1, 2, 4, 6]))
OF_FEATURES = [
    name
    for name, metric in METRICS.items()
    if metric.needs not in ("images", "labels", "locator") and not name.endswith(("_aliased", "_pil224"))
]
OF_IMAGES = [name for name, metric in METRICS.items() if metric.needs == "images"]


def features(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.normal(size=(N, WIDTH)).astype(np.float32)
    return truth, truth[WHICH] + rng.normal(size=(len(WHICH), WIDTH)).astype(np.float32)


def test_there_are_metrics_of_every_kind() -> None:
    found = [METRICS[name] for name in OF_FEATURES]
    assert any(metric.compares_pictures and metric.function in FASTER for metric in found)
    assert any(metric.compares_pictures and metric.function not in FASTER for metric in found)
    assert any(not metric.compares_pictures for metric in found)
    assert {metric.needs for metric in METRICS.values()} <= set(EXTRACTORS)


@pytest.mark.parametrize("name", OF_FEATURES)
def test_means_over_a_permutation_are_the_metrics_own(name: str, rng: np.random.Generator) -> None:
    """The statistic of the permutation test is the metric of the pictures with permuted stimuli: not of old values."""
    metric, (truth, found) = METRICS[name], features(rng)
    crossed = cross_features(metric, truth, found, WHICH, GROUPS)
    for orders in zip(permutations(range(3)), list(permutations(range(4)))[::4], strict=True):
        stimulus = np.arange(N)
        expected = np.empty(N)
        for group, order, matrix in zip(GROUPS, orders, crossed, strict=True):
            stimulus[group] = group[list(order)]
            expected[group] = matrix[list(order), np.arange(len(group))]
        shown = stimulus[WHICH]
        values = metric(truth[shown], found, [str(one) for one in shown])
        np.testing.assert_allclose(mean_columns(values[None], WHICH, N)[0], expected, atol=1e-6)


def test_labels_and_masks_too(rng: np.random.Generator) -> None:
    labels, found = np.arange(N) // 2, rng.integers(0, 4, len(WHICH))
    crossed = cross_features(METRICS["concept_top1"], labels, found, WHICH, GROUPS)
    expected = np.array([[np.mean(labels[i] == found[WHICH == j]) for j in GROUPS[1]] for i in GROUPS[1]])
    np.testing.assert_allclose(crossed[1], expected)
    masks, seen = rng.random((N, 6, 6)) < 0.5, rng.random((len(WHICH), 6, 6)) < 0.5
    overlap = cross_features(METRICS["overlap"], masks, seen, WHICH, GROUPS)[0]
    assert overlap[2, 0] == pytest.approx((masks[5] & seen[0]).sum() / (masks[5] | seen[0]).sum())


@pytest.mark.parametrize("name", OF_IMAGES)
def test_images_are_crossed_as_pair_by_pair(name: str, rng: np.random.Generator) -> None:
    metric = METRICS[name]
    truth = [rng.random((3, 20, 24), dtype=np.float32), np.full((3, 20, 20), 0.5, np.float32)]
    found = [rng.random((3, 16, 16), dtype=np.float32)]
    values = cross_pairs(metric, truth, found)
    assert values.shape == (2, 1)
    for row, image in zip(values, truth, strict=True):
        assert row[0] == pytest.approx(metric.function(image[None], found[0][None])[0], abs=1e-12)


def test_another_function_is_never_computed_by_the_faster_one(rng: np.random.Generator) -> None:
    def own(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
        return np.full(len(truth), 0.25)

    metric: Metric = replace(METRICS["pixcorr"], function=own)
    images = [rng.random((3, 4, 4), dtype=np.float32)] * 2
    assert cross_pairs(metric, images, images).tolist() == [[0.25, 0.25], [0.25, 0.25]]
