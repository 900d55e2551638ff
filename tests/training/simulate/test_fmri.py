"""Areas, and what the scanner adds: signals of variance 1, an honest noise ceiling, repetitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.errors import InputError
from minddiffuser.training.simulate.fmri import AREAS, Drives, FmriSettings, simulate_fmri

FEW = {"V1": replace(AREAS["V1"], n_voxels=60), "LO": replace(AREAS["LO"], n_voxels=60)}


def subject(settings: FmriSettings, n_train: int = 60, n_test: int = 40) -> tuple[np.ndarray, dict[str, Drives]]:
    """Shares and drives that no brain made: any numbers, each voxel on a scale of its own."""
    rng = np.random.default_rng(5)
    n_voxels = settings.n_voxels
    centre, scale = 5 * rng.standard_normal(n_voxels), np.exp(rng.standard_normal(n_voxels))

    def part(n: int) -> np.ndarray:
        return (centre + scale * rng.standard_normal((n, n_voxels))).astype(np.float32)

    drives = {
        split: Drives(structural=part(n), semantic=part(n)) for split, n in (("train", n_train), ("test", n_test))
    }
    return rng.uniform(0, 1, n_voxels).astype(np.float32), drives


def test_areas_are_those_of_the_paper() -> None:
    settings = FmriSettings()
    assert sorted(settings.rois) == sorted("V1 V2 V3 V3ab hV4 VO PHC MT MST LO IPS".split())
    assert settings.n_voxels == 2000
    assert list(settings.rois.values())[-1][1] == 2000
    assert {name: len(voxels) for name, voxels in settings.groups.items()} == {"LVC": 1240, "HVC": 760}
    assert frozenset.union(*settings.groups.values()) == frozenset(range(2000))
    mixed = FmriSettings(areas={name: replace(AREAS[name], n_voxels=2) for name in ("V1", "LO", "V2")})
    assert mixed.groups == {"LVC": {0, 1, 4, 5}, "HVC": {2, 3}}
    early = [AREAS[name] for name in ("V1", "V2", "V3", "V3ab", "hV4")]
    widths = [area.field_sd for area in early]
    assert widths == sorted(widths)
    assert [np.mean(area.layers) for area in early] == sorted(np.mean(area.layers) for area in early)


def test_signal_is_standardised_by_training_pictures() -> None:
    settings = FmriSettings(snr=1e6)  # what is left is signal
    share, drives = subject(settings)
    shifted = {"train": drives["train"], "test": replace_drives(drives["test"], 3.0)}
    plain, moved = (simulate_fmri(share, d, settings, np.random.default_rng(0)) for d in (drives, shifted))
    np.testing.assert_allclose(plain["train"].responses.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(plain["train"].responses.std(axis=0), 1, atol=1e-3)
    # The test split's own mean is never taken out.
    assert np.abs(plain["test"].responses.mean(axis=0)).max() > 0.05
    np.testing.assert_array_equal(plain["train"].responses, moved["train"].responses)
    assert np.abs(moved["test"].responses - plain["test"].responses).max() > 0.1


def replace_drives(drives: Drives, shift: float) -> Drives:
    return Drives(structural=drives.structural + shift, semantic=drives.semantic + shift)


@pytest.mark.parametrize("repetitions", [1, 3])
def test_noise_ceiling_is_what_repeated_measurements_show(repetitions: int) -> None:
    """Two runs of the same subject with other noise correlate, over trials, at the stated ceiling."""
    settings = FmriSettings(snr=0.8, test_repetitions=repetitions, areas=FEW)
    share, drives = subject(settings, n_train=1500, n_test=2)
    drives["test"] = drives["train"]  # signal variance is exactly 1
    run = simulate_fmri(share, drives, settings, np.random.default_rng(0))["test"]
    sd = noise_sd(settings, np.random.default_rng(0), 120)
    other = np.random.default_rng(99)
    signal = simulate_fmri(share, drives, replace(settings, snr=1e6), np.random.default_rng(0))["test"].responses
    again = signal + other.standard_normal(signal.shape) * sd / np.sqrt(repetitions)
    a, b = (x - x.mean(axis=0) for x in (run.responses, again))
    reliability = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    assert abs(np.mean(reliability - run.noise_ceiling)) < 0.005
    assert np.abs(reliability - run.noise_ceiling).max() < 0.12  # 1,500 trials: standard error 0.025
    assert np.corrcoef(reliability, run.noise_ceiling)[0, 1] > 0.9
    assert run.noise_ceiling.std() > 0.05  # voxels differ


def noise_sd(settings: FmriSettings, rng: np.random.Generator, n_voxels: int) -> np.ndarray:
    """From the stated ceiling of one showing, var_noise = 1 / ceiling - 1: the formula turned round."""
    share, drives = subject(settings)
    ceiling = simulate_fmri(share, drives, settings, rng)["train"].noise_ceiling
    assert ceiling.shape == (n_voxels,)
    return np.sqrt(1 / ceiling.astype(np.float64) - 1)


def test_ceilings_follow_snr_and_repetitions() -> None:
    settings = FmriSettings(snr=0.5, snr_spread=0.0, test_repetitions=3)
    share, drives = subject(settings)
    split = simulate_fmri(share, drives, settings, np.random.default_rng(0))
    np.testing.assert_allclose(split["train"].noise_ceiling, 1 / (1 + 4), rtol=1e-5)
    np.testing.assert_allclose(split["test"].noise_ceiling, 1 / (1 + 4 / 3), rtol=1e-5)


def test_ceilings_refer_to_the_training_pictures_signal() -> None:
    """Test pictures that move voxels half as much: the noise is as stated, their own share of variance is lower."""
    settings = FmriSettings(snr=0.8, compression=0.0, areas=FEW)
    share, drives = subject(settings, n_train=60, n_test=1500)
    centre = {name: getattr(drives["train"], name).mean(axis=0) for name in ("structural", "semantic")}
    weak = {name: centre[name] + 0.5 * (getattr(drives["test"], name) - centre[name]) for name in centre}
    drives = {"train": drives["train"], "test": Drives(**weak)}
    run = simulate_fmri(share, drives, settings, np.random.default_rng(0))["test"]
    plain = simulate_fmri(share, drives, replace(settings, snr=1e9), np.random.default_rng(0))["test"].responses
    noise = (run.responses - plain).var(axis=0)
    np.testing.assert_allclose(1 / (1 + noise), run.noise_ceiling, atol=0.03)
    own = plain.var(axis=0) / (plain.var(axis=0) + noise)
    assert np.mean(run.noise_ceiling - own) > 0.1


def test_training_repetitions_are_trials_of_their_own() -> None:
    settings = FmriSettings(train_repetitions=2)
    share, drives = subject(settings)
    split = simulate_fmri(share, drives, settings, np.random.default_rng(0))
    assert split["train"].stimulus.tolist() == [*range(60), *range(60)]
    first, second = split["train"].responses[:60], split["train"].responses[60:]
    between = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert 0.4 < between < 0.6  # snr 1: half of the variance is shared
    assert split["test"].stimulus.tolist() == list(range(40))


@pytest.mark.parametrize(
    "change",
    [
        {"snr": 0.0},
        {"snr": float("nan")},
        {"snr_spread": -1.0},
        {"test_repetitions": 4},
        {"train_repetitions": 0},
        {"compression": -0.1},
        {"sparsity": 0.0},
        {"areas": {}},
    ],
)
def test_settings_refuse(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        FmriSettings(**change)
