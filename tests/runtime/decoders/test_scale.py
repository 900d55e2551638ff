"""Responses in other units or normalised otherwise, on data whose right answer is known by construction."""

import numpy as np
import pytest

from minddiffuser.runtime.decoders.scale import TrainingStatistics, check_scale, measure_scale
from minddiffuser.runtime.errors import InputError

N_TRIALS, N_VOXELS = 40, 300


def subject(kind: str) -> tuple[TrainingStatistics, np.ndarray]:
    """Statistics of training and test responses as recorded."""
    rng = np.random.default_rng(3)
    mean, std = np.zeros(N_VOXELS), np.exp(0.5 * rng.standard_normal(N_VOXELS))
    if kind == "raw":
        mean, std = rng.uniform(800, 1200, N_VOXELS), rng.uniform(10, 30, N_VOXELS)
    test = mean + std * rng.standard_normal((N_TRIALS, N_VOXELS))
    return TrainingStatistics(mean=mean.astype(np.float32), std=std.astype(np.float32)), test.astype(np.float32)


def message(kind: str, change: str) -> tuple[str, str]:
    """("nothing", "warned" or "refused", and the sentence) of a change."""
    statistics, test = subject(kind)
    changed = {
        "none": test,
        "one trial": test[:1],
        "louder": 1.2 * test,
        "int16": 300 * test,
        "uV": 1e6 * test,
        "V": 1e-6 * test,
        "percent": 0.01 * test,
        "tenth": 0.1 * test,
        "z-scored": (test - test.mean(0)) / test.std(0),
        "one trial in int16": 300 * test[:1],
        "one trial in V": 1e-6 * test[:1],
        "one picture": np.repeat(test[:1], N_TRIALS, axis=0),
    }[change]
    try:
        warning = check_scale(statistics.scores(changed.astype(np.float32)))
    except InputError as error:
        return "refused", str(error)
    return ("nothing", "") if warning is None else ("warned", warning)


@pytest.mark.parametrize(
    ("kind", "change", "outcome", "cause"),
    [
        ("centred", "none", "nothing", ""),
        ("raw", "none", "nothing", ""),
        ("centred", "one trial", "nothing", ""),
        ("raw", "one trial", "nothing", ""),
        ("centred", "louder", "nothing", ""),
        ("raw", "louder", "warned", "means differ from those in training"),
        ("centred", "int16", "refused", "300 times percent"),
        ("raw", "int16", "refused", "300 times percent"),
        ("centred", "uV", "refused", "too large"),
        ("raw", "uV", "refused", "too large"),
        ("centred", "V", "refused", "too little"),
        ("raw", "V", "refused", "z-scored already or have smaller units"),
        ("centred", "percent", "refused", "too little"),
        ("raw", "percent", "refused", "smaller units"),
        ("centred", "tenth", "warned", "too little"),
        ("raw", "z-scored", "refused", "z-scored already"),
        ("centred", "one trial in int16", "refused", "means differ"),
        ("centred", "one trial in V", "refused", "too little"),
        ("raw", "one picture", "refused", "copies of one"),
    ],
)
def test_what_is_said_of_other_units(kind: str, change: str, outcome: str, cause: str) -> None:
    found, sentence = message(kind, change)
    assert found == outcome, sentence
    assert cause in sentence
    if outcome != "nothing":
        assert "median absolute z-score" in sentence
        assert ("spread over trials" in sentence) == ("trial" not in change)


def test_raw_responses_where_training_was_z_scored_are_refused() -> None:
    _, test = subject("raw")
    ones = np.ones(N_VOXELS, np.float32)
    with pytest.raises(InputError, match="raw and the training responses were z-scored"):
        check_scale(TrainingStatistics(mean=0 * ones, std=ones).scores(test))


def test_the_measures_are_a_median_and_a_ratio_of_deviations() -> None:
    statistics, test = subject("raw")
    mean, std = statistics.mean.astype(np.float64), statistics.std.astype(np.float64)
    scale = measure_scale(statistics.scores(test))
    assert scale.median == pytest.approx(np.median(np.abs((test - mean) / std)), rel=1e-4)
    assert scale.spread == pytest.approx(np.median(test.std(0) / std), rel=1e-4)
    assert measure_scale(statistics.scores(test[:7])).spread is None
    assert measure_scale(statistics.scores(test[:8])).spread is not None


def test_a_trial_that_is_an_artefact_does_not_widen_the_spread() -> None:
    statistics, test = subject("centred")
    before = measure_scale(statistics.scores(test)).spread
    test[3] *= 1e5
    after = measure_scale(statistics.scores(test)).spread
    assert after == pytest.approx(before, rel=0.1)


def test_a_few_values_near_the_mean_are_no_fault() -> None:
    assert check_scale(np.full((1, 15), 0.001, np.float32)) is None
    with pytest.raises(InputError, match="too little"):
        check_scale(np.full((1, 16), 0.001, np.float32))


def test_means_of_many_trials_of_noise_are_usual_for_sensors_alone() -> None:
    rng = np.random.default_rng(0)
    of_eighty = (rng.standard_normal((16, 400)) / np.sqrt(80)).astype(np.float32)
    assert check_scale(of_eighty, sensors=True) is None
    assert "vary too little" in (check_scale(of_eighty) or "")
    of_thousand = (of_eighty * np.sqrt(80 / 1000)).astype(np.float32)
    assert "vary too little" in (check_scale(of_thousand, sensors=True) or "")
    with pytest.raises(InputError, match="not on the scale"):
        check_scale((of_eighty * 1e-6).astype(np.float32), sensors=True)
