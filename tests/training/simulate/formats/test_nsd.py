"""The miniature of NSD has the layout of NSD's own files, looked at without our reader."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import nibabel
import nsd_miniature as miniature
import numpy as np
import pytest
from scipy.io import loadmat

from minddiffuser.training.simulate.formats.nsd import trials_per_session


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("miniature") / "nsd"
    miniature.write(made)
    return made


@pytest.mark.parametrize("n_trials", [1, 29, 30, 31, 110, 1201, 1584, 30000])
def test_sessions_are_of_one_size_and_leave_no_trial_over(n_trials: int) -> None:
    size = trials_per_session(n_trials)
    assert n_trials % size == 0
    assert n_trials // size <= 40
    assert size >= min(30, n_trials)


def test_the_publics_size_gives_the_publics_sessions() -> None:
    assert trials_per_session(30000) == 750


def test_betas_are_int16_with_reversed_axes(folder: Path) -> None:
    mask = nibabel.load(miniature.roi_folder(folder) / "nsdgeneral.nii.gz")
    assert len(set(mask.shape)) == 3
    assert set(np.unique(mask.get_fdata())) == {-1.0, 1.0}
    for path in miniature.beta_folder(folder).glob("*.hdf5"):
        with h5py.File(path) as file:
            assert file["betas"].dtype == np.int16
            assert file["betas"].shape == (55, *mask.shape[::-1])


def test_a_trial_is_where_the_design_says(folder: Path) -> None:
    """Every trial's betas are 300 times the response to the picture whose pixels the design points at."""
    made = miniature.subject()
    design = loadmat(folder / "nsddata/experiments/nsd/nsd_expdesign.mat")
    order, ids = design["masterordering"][0].astype(int), design["subjectim"][0].astype(int)
    np.testing.assert_array_equal(np.sort(design["sharedix"][0]), np.sort(ids[:10]))
    assert order.min() == 1
    mask = nibabel.load(miniature.roi_folder(folder) / "nsdgeneral.nii.gz").get_fdata() > 0
    with h5py.File(folder / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        stimuli = file["imgBrick"][:]
    betas = np.concatenate(
        [h5py.File(path)["betas"][:] for path in sorted(miniature.beta_folder(folder).glob("*.hdf5"))]
    ).transpose(0, 3, 2, 1)[:, mask]
    for trial in (0, 17, 54, 55, 109):
        split = "test" if order[trial] <= 10 else "train"
        picture = stimuli[ids[order[trial] - 1] - 1]
        number = next(k for k in range(50) if np.array_equal(made.pictures[split].images[k], picture))
        rows = made.responses[split].responses[made.responses[split].stimulus == number]
        assert np.abs(rows * 300 - betas[trial]).max(axis=1).min() <= 0.5 + 1e-3


def test_captions_by_cocos_numbers(folder: Path) -> None:
    with open(folder / "nsddata/experiments/nsd/nsd_stim_info_merged.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    place = folder / "nsddata_stimuli/stimuli/nsd/annotations"
    by_split = {
        split: json.loads((place / f"captions_{split}.json").read_text())["annotations"]
        for split in ("train2017", "val2017")
    }
    texts = {
        int(row["nsdId"]): [
            entry["caption"] for entry in by_split[row["cocoSplit"]] if entry["image_id"] == int(row["cocoId"])
        ]
        for row in rows
    }
    assert len(rows) == 55
    assert sorted(len(found) for found in texts.values()) == [0] * 5 + [2] * 50
    shared = {int(row["nsdId"]) for row in rows if row["shared1000"] == "True"}
    assert {texts[number][0].split()[0] for number in shared} == {"test"}
