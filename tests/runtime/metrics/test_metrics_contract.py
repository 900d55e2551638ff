"""What every registered metric promises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError, MindDiffuserError, ShapeError
from minddiffuser.runtime.metrics import METRICS
from minddiffuser.runtime.metrics.extractors import EXTRACTORS


def _pictures(rng: np.random.Generator) -> np.ndarray:
    return rng.random((3, 3, 20, 24), dtype=np.float32)


def _features(rng: np.random.Generator) -> np.ndarray:
    """The last two are most alike, the first is more like the third: what looks for the nearest is wrong there too."""
    features = rng.normal(size=(3, 10)).astype(np.float32)
    alike = np.corrcoef(features)[[1, 0, 0], [2, 2, 1]]  # without the first, the second, the third
    first = int(alike.argmax())
    second, third = sorted({0, 1, 2} - {first}, key=lambda row: np.corrcoef(features)[first, row])
    return features[[first, second, third]]


def _labels(rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(3)


def _masks(rng: np.random.Generator) -> np.ndarray:
    """Boxes of different sizes at different places."""
    masks = np.zeros((3, 20, 24), bool)
    for mask, at in zip(masks, rng.permutation(3), strict=True):
        mask[3 * at : 6 * at + 3, 6 * at : 8 * at + 4] = True
    return masks


# What an extractor that is not named gives is an embedding.
SAMPLES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    **dict.fromkeys(EXTRACTORS, _features),
    "images": _pictures,
    "labels": _labels,
    "locator": _masks,
}
# The best value there can be: how far from it a value is, is what the tests below look at.
BEST = {name: metric.range[1 if metric.better == "higher" else 0] for name, metric in METRICS.items()}
every_metric = pytest.mark.parametrize("name", METRICS)


@every_metric
def test_it_says_what_a_reader_needs(name: str) -> None:
    metric = METRICS[name]
    assert metric.name == name
    assert metric.label
    assert metric.meaning.endswith(".")
    assert metric.better in ("higher", "lower")
    assert metric.needs in EXTRACTORS
    assert not (metric.compares_pictures and metric.needs == "images"), "all images are never held at once"


@every_metric
def test_trials_of_one_picture_do_not_stand_in_each_others_way(name: str) -> None:
    sample = SAMPLES[METRICS[name].needs](np.random.default_rng(5))[[0, 0, 1, 1, 0]]
    np.testing.assert_allclose(METRICS[name](sample, sample.copy(), list("aabba")), BEST[name], atol=1e-12)


@every_metric
def test_identical_things_get_the_best_and_others_less(name: str) -> None:
    sample = SAMPLES[METRICS[name].needs](np.random.default_rng(0))
    same = METRICS[name].function(sample, sample.copy())
    assert same.shape == (3,)
    assert same.dtype == np.float64
    np.testing.assert_allclose(same, BEST[name], atol=1e-12)
    other = METRICS[name].function(sample, np.roll(sample, 1, axis=0))
    assert np.abs(other - BEST[name]).min() > 0.05


@every_metric
def test_a_trial_is_measured_by_its_own_pair(name: str) -> None:
    sample = SAMPLES[METRICS[name].needs](np.random.default_rng(1))
    swapped = sample[[0, 2, 1]]
    score = METRICS[name].function(sample, swapped)
    assert score[0] == pytest.approx(BEST[name])
    assert np.abs(score[1:] - BEST[name]).min() > 0.05


@every_metric
def test_inputs_are_left_as_they_were(name: str) -> None:
    first = SAMPLES[METRICS[name].needs](np.random.default_rng(2))
    second = SAMPLES[METRICS[name].needs](np.random.default_rng(3))
    copies = first.copy(), second.copy()
    METRICS[name].function(first, second)
    np.testing.assert_array_equal(first, copies[0])
    np.testing.assert_array_equal(second, copies[1])


@every_metric
def test_wrong_shapes_and_types_are_refused(name: str) -> None:
    function = METRICS[name].function
    sample = SAMPLES[METRICS[name].needs](np.random.default_rng(0))
    wrong_type = sample.astype(np.uint8) if sample.dtype.kind == "f" else sample.astype(np.float32)
    for other in (sample[:2], sample[..., None], wrong_type, sample.tolist(), sample[:0]):
        with pytest.raises(ShapeError, match="give|expected"):
            function(sample, other)
        with pytest.raises(ShapeError, match="give|expected"):
            function(other, sample)


@every_metric
def test_fewer_pictures_than_it_needs_are_refused(name: str) -> None:
    metric = METRICS[name]
    sample = SAMPLES[metric.needs](np.random.default_rng(0))
    assert metric.function(sample[: metric.min_pictures], sample[: metric.min_pictures]).shape == (metric.min_pictures,)
    if metric.min_pictures > 1:
        with pytest.raises(MindDiffuserError):
            metric.function(sample[: metric.min_pictures - 1], sample[: metric.min_pictures - 1])


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].needs == "images"])
@pytest.mark.parametrize("fault", [-0.01, 1.01, np.nan, np.inf])
def test_values_outside_the_range_are_refused(name: str, fault: float) -> None:
    pictures = _pictures(np.random.default_rng(0))
    broken = pictures.copy()
    broken[1, 2, 3, 4] = fault
    with pytest.raises(InputError, match="reconstructions span"):
        METRICS[name].function(pictures, broken)
    with pytest.raises(InputError, match="images span"):
        METRICS[name].function(broken, pictures)


@pytest.mark.parametrize("name", [name for name in METRICS if METRICS[name].needs == "images"])
def test_resolutions_may_differ(name: str) -> None:
    rng = np.random.default_rng(4)
    coarse = rng.random((2, 3, 8, 8), dtype=np.float32)
    fine = coarse.repeat(8, axis=2).repeat(8, axis=3)
    near, far = METRICS[name].function(fine, coarse), METRICS[name].function(fine, coarse[::-1])
    assert near.shape == (2,)
    assert (near > far + 0.1).all()
