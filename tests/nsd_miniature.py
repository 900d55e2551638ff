"""A small simulated fMRI subject whose arrays are known, and NSD's files of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minddiffuser.training.simulate.base import VoxelSubject
from minddiffuser.training.simulate.fmri import Responses
from minddiffuser.training.simulate.formats import nsd
from minddiffuser.training.simulate.shown import Shown, Squares

AREAS = {"V1": (0, 12), "V2": (12, 20), "hV4": (20, 26), "LO": (26, 33), "IPS": (33, 40)}
N_TRAIN, N_TEST, REPETITIONS = 40, 10, 3


def subject(seed: int = 3) -> VoxelSubject:
    """40 voxels, 40 training pictures shown twice and 10 test pictures shown three times: 110 trials."""
    rng = np.random.default_rng(seed)
    made = {}
    for split, n, repetitions in (("train", N_TRAIN, 2), ("test", N_TEST, REPETITIONS)):
        made[split] = Responses(
            responses=rng.normal(0, 1.5, (n * repetitions, 40)).astype(np.float32),
            stimulus=np.tile(np.arange(n), repetitions),
            noise_ceiling=np.linspace(0.1, 0.8, 40, dtype=np.float32),
        )
    pictures = {
        split: Shown(
            Squares(list(rng.integers(0, 256, (n, 12, 12, 3), dtype=np.uint8)), 12),
            [[f"{split} thing {k}", f"another caption of {k}"] for k in range(n)],
        )
        for split, n in (("train", N_TRAIN), ("test", N_TEST))
    }
    return VoxelSubject(name="small", seed=seed, pictures=pictures, rois=AREAS, responses=made, provenance={})


def means(made: Responses) -> NDArray[np.float64]:
    """(n_pictures, n_voxels): the mean over the repetitions of each."""
    n = int(made.stimulus.max()) + 1
    return np.stack([made.responses[made.stimulus == k].mean(axis=0, dtype=np.float64) for k in range(n)])


def write(folder: Path) -> VoxelSubject:
    """NSD's files of the subject."""
    made = subject()
    folder.mkdir(parents=True)
    nsd.write(folder, made)
    return made


def beta_folder(folder: Path) -> Path:
    return folder / "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR"


def roi_folder(folder: Path) -> Path:
    return folder / "nsddata/ppdata/subj01/func1pt8mm/roi"


def to_nifti(folder: Path, *, packed: bool = True) -> None:
    """The sessions as NSD's NIfTI images, in place of HDF5."""
    import h5py
    import nibabel

    for path in sorted(beta_folder(folder).glob("*.hdf5")):
        with h5py.File(path) as file:
            betas = file["betas"][:]
        image = nibabel.Nifti1Image(betas.transpose(3, 2, 1, 0), np.eye(4))
        nibabel.save(image, path.with_suffix(".nii.gz" if packed else ".nii"))
        path.unlink()


def to_styvesg(folder: Path) -> None:
    """The stimuli as styvesg's preparation has them: a subject's own, in the order of its design, channels first."""
    import h5py
    from scipy.io import loadmat

    pictures = loadmat(folder / "nsddata/experiments/nsd/nsd_expdesign.mat")["subjectim"][0].astype(int) - 1
    path = folder / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    with h5py.File(path) as file:
        stack = np.stack([file["imgBrick"][number] for number in pictures])
    path.unlink()
    with h5py.File(path.with_name("S1_stimuli_12.h5py"), "w") as file:
        file["stimuli"] = stack.transpose(0, 3, 1, 2)


def to_brain_diffuser(folder: Path, made: VoxelSubject) -> Path:
    """Brain-Diffuser's arrays of the subject, whole numbers averaged, beside NSD's masks."""
    for path in beta_folder(folder).iterdir():
        path.unlink()
    place = folder / "processed_data/subj01"
    place.mkdir(parents=True)
    for split in ("train", "test"):
        np.save(place / f"nsd_{split}_fmriavg_nsdgeneral_sub1.npy", 300 * means(made.responses[split]))
        shown = made.pictures[split]
        np.save(place / f"nsd_{split}_stim_sub1.npy", np.stack(list(shown.images)).astype(np.float64))
        np.save(place / f"nsd_{split}_cap_sub1.npy", np.array([list(texts) for texts in shown.captions]))
    return place


def to_mind_diffuser(place: Path, made: VoxelSubject) -> None:
    """MindDiffuser's arrays of the subject: one per area, pictures as floats with channels first, COCO's numbers."""
    place.mkdir()
    annotations = []
    for split, voxels, stimuli, coco, first in (
        ("train", "trn_voxel_data", "trn_stim_data", "trn_cocoID_correct", 100),
        ("test", "val_voxel_multi_trial_data", "val_stim_multi_trial_data", "val_cocoID_correct", 900),
    ):
        rows = means(made.responses[split])
        for area, (start, stop) in AREAS.items():
            np.save(place / f"{voxels}_{area}.npy", rows[:, start:stop].astype(np.float32))
        shown = made.pictures[split]
        stack = np.stack(list(shown.images)).transpose(0, 3, 1, 2) / 255
        np.save(place / f"{stimuli}.npy", stack.astype(np.float32))
        np.save(place / f"{coco}.npy", first + np.arange(len(rows)))
        annotations += [
            {"image_id": first + k, "id": 10 * k + j, "caption": text}
            for k, texts in enumerate(shown.captions)
            for j, text in enumerate(texts)
        ]
    np.save(place / "val_voxel_single_trial_data_V1.npy", np.zeros((30, 12), np.float32))  # not read
    (place / "coco").mkdir()
    for name, part in (("train2017", annotations), ("val2017", [])):
        (place / "coco" / f"captions_{name}.json").write_text(json.dumps({"annotations": part, "images": []}))


def cut(path: Path, share: float = 0.6) -> None:
    """Truncate a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
