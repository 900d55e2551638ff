"""Voxels in another order: reported where their means are informative, and nowhere else."""

import numpy as np
import pytest

from minddiffuser.runtime.data.layout import ResponseLayout, Rois
from minddiffuser.runtime.decoders.scale import TrainingStatistics
from minddiffuser.runtime.decoders.voxel_order import LEAST_VOXELS, order_warning

N = 400
ROIS = {"V1": (0, 150), "V2": (150, 400)}


def subject(spread: float, n_trials: int, *, n_pictures: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Means of training with this spread over voxels, and test trials whose signal is shared by repeated pictures."""
    rng = np.random.default_rng(seed)
    mean = spread * rng.standard_normal(N)
    signal, noise = rng.standard_normal((n_pictures, N)), rng.standard_normal((n_trials, N))
    shown = np.arange(n_trials) % n_pictures
    return mean.astype(np.float32), (mean + (signal[shown] + noise) / 2**0.5).astype(np.float32)


def training(mean: np.ndarray, rois: Rois | None = None) -> TrainingStatistics:
    layout = ResponseLayout(modality="fmri", shape=mean.shape, rois=rois)
    return TrainingStatistics(mean=mean, std=np.ones(len(mean), np.float32), layout=layout)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("n_trials", "n_pictures"), [(1, 1), (20, 1), (60, 60)])
@pytest.mark.parametrize("spread", [1.5, 4.0])
def test_the_right_order_is_never_doubted_and_another_one_is(
    spread: float, n_trials: int, n_pictures: int, seed: int
) -> None:
    mean, test = subject(spread, n_trials, n_pictures=n_pictures, seed=seed)
    assert order_warning(test, training(mean)) is None
    warning = order_warning(test[:, ::-1], training(mean))
    assert warning is not None
    assert "another order" in warning


def test_an_order_wrong_within_rois_is_seen_behind_means_that_differ_between_them() -> None:
    mean, test = subject(2.0, 30)
    offset = np.where(np.arange(N) < 150, 0, 50).astype(np.float32)
    within = np.r_[np.arange(150)[::-1], np.arange(150, N)[::-1]]
    mixed, test = mean + offset, test + offset
    assert order_warning(test, training(mixed, ROIS)) is None
    assert order_warning(test[:, within], training(mixed, ROIS)) is not None


def test_groups_of_areas_and_regions_with_gaps_do_not_hide_an_order_wrong_within_areas() -> None:
    mean, test = subject(2.0, 30)
    offset = np.where(np.arange(N) % 3 == 0, 50, 0).astype(np.float32)  # an area of every third voxel
    third = np.flatnonzero(np.arange(N) % 3 == 0)
    within = np.arange(N)
    within[third] = third[::-1]
    within[within % 3 > 0] = within[within % 3 > 0][::-1]
    mixed, test = mean + offset, test + offset
    rois = {"third": frozenset(map(int, third)), "all": (0, N)}
    assert order_warning(test, training(mixed, rois)) is None
    assert order_warning(test[:, within], training(mixed, rois)) is not None
    assert order_warning(test[:, within], training(mixed, {"all": (0, N)})) is None  # the areas' means hide it


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_means_that_hardly_differ_tell_nothing(spread: float) -> None:
    mean, test = subject(spread, 30)
    assert order_warning(test[:, ::-1], training(mean)) is None


def test_few_voxels_tell_nothing() -> None:
    mean, test = subject(3.0, 30)
    few = LEAST_VOXELS - 1
    assert order_warning(test[:, :few][:, ::-1], training(mean[:few])) is None
    assert order_warning(test[:, : few + 1][:, ::-1], training(mean[: few + 1])) is not None


def test_responses_centred_where_training_was_not_are_reported() -> None:
    mean, test = subject(2.0, 30)
    warning = order_warning(test - test.mean(0), training(mean))
    assert warning is not None
    assert "centred or z-scored" in warning
