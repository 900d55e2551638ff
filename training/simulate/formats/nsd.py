"""A miniature of the Natural Scenes Dataset: a simulated fMRI subject in the very files of NSD's bucket.

Session betas in HDF5 (int16, 300 times per cent, axes reversed), masks and atlases, the experimental design with
numbers from 1, the stimuli, and COCO's captions. What is small: volumes, pictures, sessions of some tens of trials.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.progress import unheard
from ..base import OnProgress, VoxelSubject

SUBJECT = "subj01"
# As in NSD: whole numbers are 300 times per cent signal change; a subject has at most 40 sessions, all of one size.
SCALE, _MOST_SESSIONS, _FEWEST_TRIALS = 300, 40, 30
_UNSEEN = 5  # pictures that only other subjects saw
_VOLUME_SHARE = 0.4  # of the volume are voxels of the mask
_SUBJECTS = 8
# Values of the atlases, as NSD's have them; an area is halved between its regions.
KASTNER: dict[str, tuple[str, ...]] = {
    "V1": ("V1v", "V1d"),
    "V2": ("V2v", "V2d"),
    "V3": ("V3v", "V3d"),
    "hV4": ("hV4",),
    "VO": ("VO1", "VO2"),
    "PHC": ("PHC1", "PHC2"),
    "MST": ("MST",),
    "MT": ("hMT",),
    "LO": ("LO2", "LO1"),
    "V3ab": ("V3b", "V3a"),
    "IPS": ("IPS0", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5"),
}
_KASTNER_LABELS = [region for regions in KASTNER.values() for region in regions] + ["SPL1", "FEF"]
_PRF_LABELS = _KASTNER_LABELS[:7]
_STREAM_LABELS = ["early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"]
_STREAM_OF = {
    **dict.fromkeys(("V1", "V2", "V3"), "early"),
    "hV4": "midventral",
    "V3ab": "midparietal",
    **dict.fromkeys(("VO", "PHC"), "ventral"),
    **dict.fromkeys(("LO", "MT", "MST"), "lateral"),
    "IPS": "parietal",
}


def write(out: Path, subject: VoxelSubject, *, progress: OnProgress = unheard) -> None:
    """Write a subject of single trials.

    Parameters
    ----------
    out : an empty folder.
    subject : a simulated fMRI subject; test trials are not averaged. Its trials are shuffled over sessions.
    progress : called with (phase, done, total).
    """
    rng = np.random.default_rng(np.random.SeedSequence(subject.seed).spawn(9)[-1])
    n_train, n_test = (len(subject.pictures[split].images) for split in ("train", "test"))
    ids = 1 + rng.permutation(n_train + n_test + _UNSEEN)  # 73k ids, from 1
    pictures = np.concatenate([np.sort(ids[:n_test]), rng.permutation(np.sort(ids[n_test : n_test + n_train]))])
    shape, places = _places(len(subject.responses["train"].responses[0]), rng)
    responses = np.concatenate([subject.responses[split].responses for split in ("test", "train")])
    shown = np.concatenate([subject.responses["test"].stimulus, n_test + subject.responses["train"].stimulus])
    order = rng.permutation(len(shown))
    _write_design(out, 1 + shown[order], pictures, n_test)
    _write_sessions(out, responses[order], shape, places, progress)
    _write_rois(out, subject, shape, places)
    _write_noise(out, subject, shape, places)
    _write_pictures(out, subject, pictures, len(ids), rng)


def _places(n_voxels: int, rng: np.random.Generator) -> tuple[tuple[int, int, int], NDArray[np.intp]]:
    """A volume with three different sides, and the places of the voxels in it, ascending."""
    side = max(2, int(np.ceil((n_voxels / _VOLUME_SHARE) ** (1 / 3))))
    shape = (side, side + 2, side + 1)
    return shape, np.sort(rng.choice(int(np.prod(shape)), n_voxels, replace=False))


def trials_per_session(n_trials: int) -> int:
    """The smallest size of sessions, at least 30 trials and at most 40 sessions, that leaves no trial over."""
    fewest = max(_FEWEST_TRIALS, -(-n_trials // _MOST_SESSIONS))
    return next((size for size in range(fewest, n_trials) if n_trials % size == 0), n_trials)


def _write_design(out: Path, ordering: NDArray[Any], pictures: NDArray[Any], n_shared: int) -> None:
    from scipy.io import savemat

    content = {
        "masterordering": ordering[None].astype(np.float64),  # MATLAB's numbers
        "subjectim": np.tile(pictures.astype(np.float64), (_SUBJECTS, 1)),
        "sharedix": pictures[None, :n_shared].astype(np.float64),
    }
    path = out / "nsddata/experiments/nsd/nsd_expdesign.mat"
    path.parent.mkdir(parents=True)
    savemat(path, content)


def _beta_folder(out: Path) -> Path:
    return out / f"nsddata_betas/ppdata/{SUBJECT}/func1pt8mm/betas_fithrf_GLMdenoise_RR"


def _write_sessions(
    out: Path, responses: NDArray[np.float32], shape: tuple[int, int, int], places: NDArray[np.intp], progress: Any
) -> None:
    import h5py

    size = trials_per_session(len(responses))
    n_sessions = len(responses) // size
    _beta_folder(out).mkdir(parents=True)
    for session in range(n_sessions):
        progress("writing sessions", session, n_sessions)
        rows = responses[session * size : (session + 1) * size]
        volumes = np.zeros((size, int(np.prod(shape))), np.int16)
        volumes[:, places] = np.round(rows * SCALE).clip(-32768, 32767).astype(np.int16)
        betas = volumes.reshape(size, *shape).transpose(0, 3, 2, 1)
        with h5py.File(_beta_folder(out) / f"betas_session{session + 1:02d}.hdf5", "w") as file:
            file.create_dataset("betas", data=betas, chunks=(1, *betas.shape[1:]))
    progress("writing sessions", n_sessions, n_sessions)


def _write_rois(out: Path, subject: VoxelSubject, shape: tuple[int, int, int], places: NDArray[np.intp]) -> None:
    """The mask, the paper's areas as Kastner2015 and prf-visualrois have them, and the streams."""
    folder = out / f"nsddata/ppdata/{SUBJECT}/func1pt8mm/roi"
    folder.mkdir(parents=True)
    masks = {"nsdgeneral": np.ones(len(places), np.int64)}
    masks |= {name: np.zeros(len(places), np.int64) for name in ("Kastner2015", "prf-visualrois", "streams")}
    for area, regions in KASTNER.items():
        voxels = _voxels(subject.rois, area)
        for region, part in zip(regions, np.array_split(voxels, len(regions)), strict=True):
            masks["Kastner2015"][part] = 1 + _KASTNER_LABELS.index(region)
            if region in _PRF_LABELS:
                masks["prf-visualrois"][part] = 1 + _PRF_LABELS.index(region)
        masks["streams"][voxels] = 1 + _STREAM_LABELS.index(_STREAM_OF[area])
    for name, values in masks.items():
        _write_volume(folder / f"{name}.nii.gz", values, shape, places, outside=-1 if name == "nsdgeneral" else 0)
    names = {"Kastner2015": _KASTNER_LABELS, "prf-visualrois": _PRF_LABELS, "streams": _STREAM_LABELS}
    for atlas, labels in names.items():
        whose = "fsaverage" if atlas == "Kastner2015" else SUBJECT
        path = out / f"nsddata/freesurfer/{whose}/label/{atlas}.mgz.ctab"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{value} {label}\n" for value, label in enumerate(["Unknown", *labels])))


def _voxels(rois: Mapping[str, Any], area: str) -> NDArray[np.intp]:
    span = rois.get(area, ())
    return np.arange(*span) if isinstance(span, tuple) and span else np.array(sorted(span), np.intp)


def _write_noise(out: Path, subject: VoxelSubject, shape: tuple[int, int, int], places: NDArray[np.intp]) -> None:
    """The ratio of a voxel's standard deviations of signal and noise."""
    ceiling = subject.responses["train"].noise_ceiling.astype(np.float64)
    ratio = np.sqrt(ceiling / np.maximum(1 - ceiling, 1e-6))
    _write_volume(_beta_folder(out) / "ncsnr.nii.gz", ratio.astype(np.float32), shape, places, outside=np.nan)


def _write_volume(
    path: Path, values: NDArray[Any], shape: tuple[int, int, int], places: NDArray[np.intp], *, outside: float
) -> None:
    import nibabel

    whole = values.dtype.kind == "i"
    volume = np.full(int(np.prod(shape)), outside, np.int16 if whole else np.float32)
    volume[places] = values
    affine = np.diag([1.8, 1.8, 1.8, 1.0])
    affine[:3, 3] = -0.9 * np.array(shape)
    image: Any = nibabel.Nifti1Image(volume.reshape(shape), affine)  # type: ignore[no-untyped-call]
    nibabel.save(image, path)


def _write_pictures(
    out: Path, subject: VoxelSubject, pictures: NDArray[Any], n_stimuli: int, rng: np.random.Generator
) -> None:
    """The stimuli in the order of their 73k ids, with those that only others saw, and captions by COCO's numbers."""
    import h5py

    split_of = {number - 1: place for place, number in enumerate(pictures.tolist())}
    n_test = len(subject.pictures["test"].images)
    size = len(np.asarray(subject.pictures["train"].images[0]))
    coco_ids = 1 + rng.permutation(10 * n_stimuli)[:n_stimuli]
    rows = ["," + ",".join(("cocoId", "cocoSplit", "cropBox", "loss", "nsdId", "flagged", "BOLD5000", "shared1000"))]
    captions: dict[str, list[dict[str, Any]]] = {"train2017": [], "val2017": []}
    folder = out / "nsddata_stimuli/stimuli/nsd"
    (folder / "annotations").mkdir(parents=True)
    with h5py.File(folder / "nsd_stimuli.hdf5", "w") as file:
        brick = file.create_dataset("imgBrick", (n_stimuli, size, size, 3), np.uint8, chunks=(1, size, size, 3))
        for number in range(n_stimuli):
            coco_id, split = int(coco_ids[number]), "val2017" if number % 3 == 0 else "train2017"
            place = split_of.get(number)
            shared = place is not None and place < n_test
            rows.append(f'{number},{coco_id},{split},"(0.0, 0.0, 0.0, 0.0)",0.0,{number},False,False,{shared}')
            if place is None:
                brick[number] = rng.integers(0, 256, (size, size, 3), np.uint8)
                continue
            own, index = ("test", place) if shared else ("train", place - n_test)
            brick[number] = subject.pictures[own].images[index]
            given = subject.pictures[own].captions
            for text in given[index] if len(given) else ():
                captions[split].append({"image_id": coco_id, "id": len(captions[split]), "caption": text})
    path = out / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    path.write_text("\n".join(rows) + "\n")
    for split, entries in captions.items():
        images = [{"id": entry["image_id"], "file_name": f"{entry['image_id']:012d}.jpg"} for entry in entries]
        whole = {"info": {"description": "a miniature"}, "images": images, "annotations": entries}
        (folder / "annotations" / f"captions_{split}.json").write_text(json.dumps(whole))
