"""Every kind of brain keeps the contract of base.py; a new one is tested the day it is registered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_viewer import FakeViewer

from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.report.words import caveat_of
from minddiffuser.training.score_table import remark
from minddiffuser.training.simulate.brains import BRAINS, DEFAULT_BRAIN
from minddiffuser.training.simulate.brains.base import Looked, Sources, brain_class
from minddiffuser.training.simulate.fmri import AREAS, FmriSettings
from minddiffuser.training.simulate.shown import rendered
from minddiffuser.training.simulate.subject import Showing, simulate_subject

SETTINGS = FmriSettings(areas={name: replace(AREAS[name], n_voxels=12) for name in ("V1", "hV4", "VO", "LO", "IPS")})
EARLY, SEMANTIC, MIXED = slice(0, 24), slice(24, 36), slice(36, 60)


def opened(name: str) -> Any:
    return brain_class(name).open(Sources(open_models=FakeViewer, batch_size=7), own_pictures=False)


def look(name: str, *, seed: int = 1, n_train: int = 30, n_test: int = 9, settings: FmriSettings = SETTINGS) -> Looked:
    brain = opened(name)
    train, test = (
        rendered(np.random.SeedSequence(key), n, brain.image_size, combinations="all")
        for key, n in ((11, n_train), (12, n_test))
    )
    return brain.look(train, test, settings, np.random.default_rng(seed), lambda *_: None)


def make(folder: Path, name: str, seed: int = 3, **more: Any) -> Any:
    shown = Showing(n_train=more.pop("n_train", 20), n_test=more.pop("n_test", 5))
    return simulate_subject(folder, opened(name), replace(SETTINGS, **more), shown, seed=seed)


def test_the_default_is_one_of_them() -> None:
    assert DEFAULT_BRAIN in BRAINS


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="'jelly' is unknown"):
        brain_class("jelly")


@pytest.mark.parametrize("name", BRAINS)
def test_says_what_it_is(name: str) -> None:
    kind = brain_class(name)
    assert kind.name == name
    assert kind.made_of
    assert not kind.made_of.endswith(".")
    # What stands beside its numbers: in the report, and in the table of scores.
    assert caveat_of({"simulated": True, "brain": name}) != caveat_of({"simulated": True, "brain": "jelly"})
    assert remark({"kind": "simulated fMRI", "brain": name}).startswith("simulated subject: ")


@pytest.mark.parametrize("name", BRAINS)
def test_shapes_shares_and_every_voxel_varies(name: str) -> None:
    found = look(name)
    assert found.share.shape == (60,)
    assert found.share.dtype == np.float32
    for part, n in ((found.train, 30), (found.test, 9)):
        for drives in (part.structural, part.semantic):
            assert drives.shape == (n, 60)
            assert drives.dtype == np.float32
            assert np.isfinite(drives).all()
    edges = {"V1": (1, 1), "hV4": (1, 1), "VO": (0, 0), "LO": (0, 0.3), "IPS": (0.3, 0.7)}
    for area, span in SETTINGS.rois.items():
        low, high = edges[area]
        assert (found.share[slice(*span)] >= low).all()
        assert (found.share[slice(*span)] <= high).all()
    assert found.train.structural[:, found.share > 0].std(axis=0).min() > 0
    assert found.train.semantic[:, found.share < 1].std(axis=0).min() > 0


@pytest.mark.parametrize("name", BRAINS)
def test_same_seed_same_subject_other_seed_another(name: str) -> None:
    one, two, three = (look(name, seed=seed) for seed in (1, 1, 2))
    for part in ("structural", "semantic"):
        np.testing.assert_array_equal(getattr(one.test, part), getattr(two.test, part))
        assert (getattr(one.test, part) != getattr(three.test, part)).any()


@pytest.mark.parametrize("name", BRAINS)
def test_training_drives_do_not_depend_on_the_test_pictures(name: str) -> None:
    one, two = look(name), look(name, n_test=4)
    np.testing.assert_array_equal(one.train.structural, two.train.structural)
    np.testing.assert_array_equal(one.train.semantic, two.train.semantic)
    # And the same picture drives a voxel in the same way in any company: sums of float32 in another order.
    np.testing.assert_allclose(one.test.structural[:4], two.test.structural, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one.test.semantic[:4], two.test.semantic, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BRAINS)
def test_a_picture_of_both_splits_drives_voxels_alike(name: str) -> None:
    brain = opened(name)
    train = rendered(np.random.SeedSequence(11), 30, brain.image_size, combinations="all")
    found = brain.look(train, train, SETTINGS, np.random.default_rng(1), lambda *_: None)
    np.testing.assert_array_equal(found.train.structural, found.test.structural)
    np.testing.assert_array_equal(found.train.semantic, found.test.semantic)


@pytest.mark.parametrize("name", BRAINS)
def test_progress_counts_every_picture_once(name: str) -> None:
    brain = opened(name)
    shown = [rendered(np.random.SeedSequence(k), 9, brain.image_size, combinations="all") for k in (1, 2)]
    said: list[tuple[str, int, int]] = []
    brain.look(*shown, SETTINGS, np.random.default_rng(0), lambda *now: said.append(now))
    each = [0, 7, 9]
    assert said == [(f"{split} pictures", done, 9) for split in ("train", "test") for done in each]


@pytest.mark.parametrize("name", BRAINS)
def test_noise_ceiling_is_what_repeated_showings_give(name: str, tmp_path: Path) -> None:
    """Three showings of each picture, trials of their own: their mean correlation is the ceiling stated."""
    data = make(tmp_path / "data", name, n_train=300, train_repetitions=3, snr=0.8)
    runs = np.asarray(data.responses("train")).reshape(3, 300, 60)
    assert data.stimulus("train").tolist() == [*range(300)] * 3
    runs = runs - runs.mean(axis=1, keepdims=True)
    runs /= runs.std(axis=1, keepdims=True)
    agreement = np.mean([(runs[a] * runs[b]).mean(axis=0) for a, b in ((0, 1), (0, 2), (1, 2))], axis=0)
    ceiling = data.noise_ceiling("train")
    assert abs(np.mean(agreement - ceiling)) < 0.015  # standard error over 60 voxels of 900 pairs: 0.005
    assert np.corrcoef(agreement, ceiling)[0, 1] > 0.8
    # The test split averages three.
    expected = 1 / (1 + (1 / ceiling.astype(np.float64) - 1) / 3)
    np.testing.assert_allclose(data.noise_ceiling("test"), expected, rtol=1e-5)


@pytest.mark.parametrize("name", BRAINS)
def test_the_folder_says_which_brain_made_it(name: str, tmp_path: Path) -> None:
    data = make(tmp_path / "data", name)
    assert data.provenance["brain"] == name
    assert data.provenance["kind"] == "simulated fMRI"
    assert data.layout.rois == {**SETTINGS.rois, "LVC": (0, 24), "HVC": (24, 60)}
    assert data.responses("train").shape == (20, 60)
    assert data.responses("test").shape == (5, 60)
    assert data.image_size == opened(name).image_size
    assert all(len(group) == 1 for group in data.captions("test"))
    again, other = make(tmp_path / "again", name), make(tmp_path / "other", name, seed=4)
    assert again.data_hash == data.data_hash
    assert other.hash("train") != data.hash("train")


@pytest.mark.parametrize("name", BRAINS)
def test_early_areas_follow_the_picture_and_not_its_words(name: str) -> None:
    """Captions and labels are exchanged, pictures stay: early areas do not notice, higher ones do."""
    brain = opened(name)
    train, test = (rendered(np.random.SeedSequence(k), 20, brain.image_size, combinations="all") for k in (1, 2))
    plain = brain.look(train, test, SETTINGS, np.random.default_rng(0), lambda *_: None)
    test.captions, test.labels = test.captions[::-1], test.labels[::-1]
    other = brain.look(train, test, SETTINGS, np.random.default_rng(0), lambda *_: None)
    np.testing.assert_array_equal(plain.test.structural, other.test.structural)
    assert np.abs(plain.test.semantic - other.test.semantic)[:, SEMANTIC].mean() > 0.01
