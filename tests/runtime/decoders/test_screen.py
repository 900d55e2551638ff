"""Which trials may be decoded: faults of one trial, faults of one voxel, and faults of the whole set."""

import numpy as np
import pytest

from minddiffuser.runtime.decoders.scale import TrainingStatistics
from minddiffuser.runtime.decoders.screen import screen
from minddiffuser.runtime.errors import InputError, MindDiffuserError

ROWS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
N_VOXELS = 200


def training(n_voxels: int = 4, **changes: np.ndarray) -> TrainingStatistics:
    ones = np.ones(n_voxels, np.float32)
    return TrainingStatistics(**{"mean": 0 * ones, "std": ones, **changes})


def raw(n_trials: int, seed: int = 0) -> tuple[np.ndarray, TrainingStatistics]:
    """Responses around voxel means that lie up to 60 deviations from 0, and their statistics."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(100, 600, N_VOXELS).astype(np.float32)
    std = rng.uniform(5, 20, N_VOXELS).astype(np.float32)
    rows = mean + std * rng.standard_normal((n_trials, N_VOXELS), dtype=np.float32)
    return rows.astype(np.float32), TrainingStatistics(mean=mean, std=std)


def test_bad_trials_are_reported_by_number_and_good_ones_kept() -> None:
    bad = ROWS.copy()
    bad[1, 2] = np.nan
    rows = [*bad, ROWS[0, :3], np.full(4, 7.0), np.array([1e300, 0, 1, 2])]
    found = screen(rows, training())
    assert list(found.skipped) == [1, 3, 4, 5]
    assert "1 of 4 values" in found.skipped[1]
    assert found.skipped[3] == "it has 3 voxels, expected 4"
    assert found.skipped[4] == "every voxel is 7"
    assert (found.responses[[0, 2]] == ROWS[[0, 2]]).all()
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (ROWS[:, :3], "responses have 3 voxels, the checkpoint was fitted on 4"),
        (np.full((2, 4), np.nan, np.float32), "none of the 2 trials"),
        (np.ones((2, 4), np.float32), "none of the 2 trials"),
        (np.zeros((0, 4), np.float32), "no trial"),
    ],
)
def test_nothing_to_do_is_refused(rows: np.ndarray, reason: str) -> None:
    with pytest.raises(MindDiffuserError, match=reason):
        screen(rows, training())


def test_finite_but_absurd_trials_are_bad_too() -> None:
    rows = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    rows[1, 2], rows[2, 0], rows[3, 1] = 3e6, -3e38, 9e5
    found = screen(rows, training(std=np.array([0.1, 1, 1, 1], np.float32)))
    assert list(found.skipped) == [1, 2, 3]
    assert found.skipped[1].startswith("1 of 4 voxels lie more than 30 standard deviations from training")
    assert "the furthest 3e+06" in found.skipped[1]
    assert "the furthest inf" in found.skipped[2]
    assert (found.responses[[0, 4]] == rows[[0, 4]]).all()


def test_trials_of_one_session_in_other_units_are_left_out() -> None:
    """Four of twelve trials a hundred times as large: the median over all is good, these four are not."""
    rows, statistics = raw(12)
    mixed = rows.copy()
    mixed[4:8] *= 100
    found = screen(mixed, statistics)
    assert list(found.skipped) == [4, 5, 6, 7]
    assert all("in other units" in reason for reason in found.skipped.values())
    assert (np.delete(found.responses, range(4, 8), axis=0) == np.delete(rows, range(4, 8), axis=0)).all()
    assert found.warnings == ()


@pytest.mark.parametrize("tiny", [1e-3, 1e-9, 1e-30])
def test_a_voxel_nearly_constant_in_training_adds_nothing_and_is_named(tiny: float) -> None:
    rows, statistics = raw(10)
    std = statistics.std.copy()
    std[[7, 150]] = tiny
    found = screen(rows, TrainingStatistics(mean=statistics.mean, std=std))
    assert found.skipped == {}
    (warning,) = found.warnings
    assert warning.startswith("2 of 200 voxels (7, 150) hold values more than 30 standard deviations")
    assert (found.responses[:, [7, 150]] == statistics.mean[[7, 150]]).all()
    others = np.delete(np.arange(N_VOXELS), [7, 150])
    assert (found.responses[:, others] == rows[:, others]).all()


def test_what_becomes_of_a_trial_does_not_depend_on_the_others() -> None:
    rows, statistics = raw(12)
    rows[2, 5] += 1e4
    rows[3] *= 100
    whole = screen(rows, statistics)
    for trial in (0, 2):
        alone = screen(rows[[trial]], statistics)
        assert (alone.responses[0] == whole.responses[trial]).all()
    assert list(whole.skipped) == [3]
    assert whole.responses[2, 5] == statistics.mean[5]


def test_voxels_constant_in_training_are_no_part_of_it() -> None:
    rows, statistics = raw(10)
    std = statistics.std.copy()
    std[:120] = 0
    rows[:, :120] *= 1e6
    found = screen(rows, TrainingStatistics(mean=statistics.mean, std=std))
    assert (found.skipped, found.warnings) == ({}, ())
    assert (found.responses == rows).all()


def test_the_whole_set_in_other_units_is_refused_before_its_trials() -> None:
    rows, statistics = raw(10)
    with pytest.raises(InputError, match="not on the scale of the training responses"):
        screen(300 * rows, statistics)


def test_voxels_that_spoil_many_trials_are_named_as_the_cheaper_loss() -> None:
    rows, statistics = raw(40)
    assert screen(rows, statistics).warnings == ()
    rows[5:25, [7, 120, 199]] = np.nan
    for given in (rows, list(rows)):
        found = screen(given, statistics)
        assert list(found.skipped) == list(range(5, 25))
        assert found.skipped[5].endswith("in 3 voxels (7, 120, 199)")
        (advice,) = found.warnings
        assert advice.startswith("20 trials hold NaN")
        assert "3 voxels (7, 120, 199) only: leave these voxels out" in advice
    rows[:, 7] = np.nan
    with pytest.raises(InputError, match=r"none of the 40 trials .* 3 voxels \(7, 120, 199\) only: leave these voxels"):
        screen(rows, statistics)
    rows, _ = raw(40)
    rows[3] = np.nan  # a trial that nothing saves
    assert screen(rows, statistics).warnings == ()


def test_voxels_that_lie_far_away_in_most_trials_are_no_artefacts_of_trials() -> None:
    """A tenth of the voxels, in every trial; a trial that is an artefact elsewhere is still one."""
    rows, statistics = raw(20)
    std = statistics.std.copy()
    std[:20], std[199] = 1e-6, 0
    changed = TrainingStatistics(mean=statistics.mean, std=std)
    rows[4, 40:60] += 1e5
    found = screen(rows, changed)
    assert list(found.skipped) == [4]
    assert found.skipped[4].startswith("20 of 179 others of its voxels lie more than 30 standard deviations")
    (warning,) = found.warnings
    assert warning.startswith("20 of 199 voxels (0, 1, 2, 3, 4, 5, 6, 7, …) hold values more than 30")
    good = np.delete(np.arange(20), 4)
    assert (found.responses[good, :20] == statistics.mean[:20]).all()
    assert (found.responses[good, 20:] == rows[good, 20:]).all()


def test_trials_that_are_left_out_are_not_looked_at() -> None:
    rows, statistics = raw(10)
    bad = rows.copy()
    bad[:5] *= 300
    bad[5, 3] = np.nan
    with pytest.raises(InputError, match="not on the scale"):
        screen(bad, statistics)
    for given in (bad, [*bad[:4], bad[4, :7], *bad[5:]]):
        found = screen(given, statistics, left_out=range(6))
        assert (found.skipped, found.warnings) == ({}, ())
        assert (found.responses[6:] == rows[6:]).all()
    with pytest.raises(InputError, match="all 10 trials are left out"):
        screen(bad, statistics, left_out=range(10))
    bad[6:] = np.nan
    with pytest.raises(InputError, match="none of the 4 trials"):
        screen(bad, statistics, left_out=range(6))
