"""NSD's readers on a miniature: what was simulated comes back, whatever the files' form, and wrong files are named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import nsd_miniature as miniature
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from minddiffuser.runtime.data.folder import DataFolder
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.images import pixel_hash
from minddiffuser.training.datasets.nsd import open_nsd
from minddiffuser.training.datasets.nsd.files import sessions_of, spans
from minddiffuser.training.datasets.nsd.sessions import split_note
from minddiffuser.training.datasets.prepare import PrepareSettings, prepare
from minddiffuser.training.datasets.report import Report

MEANS = ("train", "test")
DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
HALF_A_STEP = 0.5 / 300


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("nsd") / "nsd"
    miniature.write(folder)
    return folder


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(original, tmp_path / "nsd"))


def prepared(
    source: Path, out: Path, averages: tuple[str, ...] = MEANS, memory: int = 10**9, **options: Any
) -> tuple[DataFolder, Report]:
    reader = open_nsd(source, subject=1, memory=memory, **options)
    return prepare("nsd", reader, out, PrepareSettings(averages=averages, image_size=12, memory=memory))


def places(data: DataFolder, split: str) -> list[int]:
    """Which of the subject's pictures each of the folder's is, by pixels."""
    shown = miniature.subject().pictures[split].images
    known = {pixel_hash(np.asarray(image)): number for number, image in enumerate(shown)}
    return [known[pixel_hash(image)] for image in data.images(split)]


def check(data: DataFolder, tolerance: float = HALF_A_STEP) -> None:
    """The means, pictures, captions and split of the subject."""
    made = miniature.subject()
    for split, n in (("train", miniature.N_TRAIN), ("test", miniature.N_TEST)):
        order = places(data, split)
        assert sorted(order) == list(range(n))
        expected = miniature.means(made.responses[split])[order]
        np.testing.assert_allclose(data.responses(split), expected, rtol=1e-6, atol=tolerance + 1e-6)
        assert data.captions(split) == [list(made.pictures[split].captions[number]) for number in order]


@pytest.mark.parametrize("memory", [9_000, 10**9])
def test_hdf5_sessions(original: Path, tmp_path: Path, memory: int) -> None:
    data, report = prepared(original, tmp_path / "data", memory=memory)
    check(data)
    assert [piece for piece in report.pieces] == ["session01", "session02"]
    assert all(taken == (55, {}) for taken in report.pieces.values())
    assert {k: report.splits["test"][k] for k in ("pictures", "recorded_trials", "repetitions")} == {
        "pictures": 10,
        "recorded_trials": 30,
        "repetitions": [3, 3],
    }
    assert not (tmp_path / "data/stimuli").exists()  # the pictures stay in NSD's file
    assert data.layout.unit == "% signal change"


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("memory", [9_000, 10**9])
def test_nifti_sessions_are_the_same(source: Path, original: Path, tmp_path: Path, packed: bool, memory: int) -> None:
    expected, _report = prepared(original, tmp_path / "hdf5")
    miniature.to_nifti(source, packed=packed)
    data, _report = prepared(source, tmp_path / "nifti", memory=memory)
    for split in MEANS:
        np.testing.assert_array_equal(data.responses(split), expected.responses(split))


def test_a_nifti_image_with_a_scale_of_its_own_is_not_divided_again(
    source: Path, original: Path, tmp_path: Path
) -> None:
    expected, _report = prepared(original, tmp_path / "hdf5")
    miniature.to_nifti(source, packed=False)
    for path in miniature.beta_folder(source).glob("betas_session*"):
        content = bytearray(path.read_bytes())
        content[112:116] = np.float32(1 / 300).tobytes()  # scl_slope of NIfTI-1
        path.write_bytes(bytes(content))
    data, _report = prepared(source, tmp_path / "data")
    np.testing.assert_allclose(data.responses("test"), expected.responses("test"), rtol=1e-5, atol=1e-6)


def test_single_trials_are_in_the_order_of_the_sessions(original: Path, tmp_path: Path) -> None:
    data, _report = prepared(original, tmp_path / "data", averages=("test",))
    design = loadmat(original / DESIGN)
    order = design["masterordering"].reshape(-1).astype(int) - 1
    ids = design["subjectim"][0].astype(int) - 1
    trained = order[order >= miniature.N_TEST]
    indices = np.array([reference.index for reference in data.pictures("train")])
    np.testing.assert_array_equal(indices[data.stimulus("train")], ids[trained])
    assert list(indices) == sorted(indices)
    sessions = [h5py.File(path)["betas"][:] for path in sorted(miniature.beta_folder(original).glob("*.hdf5"))]
    whole = np.concatenate(sessions).transpose(0, 3, 2, 1)
    mask = nibabel.load(miniature.roi_folder(original) / "nsdgeneral.nii.gz").get_fdata() > 0
    expected = (whole[:, mask] / np.float32(300))[order >= miniature.N_TEST]
    np.testing.assert_allclose(data.responses("train"), expected, rtol=1e-6)


def test_where_the_voxels_lie_and_in_which_regions(original: Path, tmp_path: Path) -> None:
    data, _report = prepared(original, tmp_path / "data")
    voxels, rois = data.layout.voxels, data.layout.rois
    assert voxels is not None
    assert rois is not None
    image = nibabel.load(miniature.roi_folder(original) / "nsdgeneral.nii.gz")
    np.testing.assert_array_equal(voxels.ijk, np.argwhere(image.get_fdata() > 0))
    np.testing.assert_array_equal(voxels.affine, image.affine)
    for area, span in miniature.AREAS.items():
        assert rois[area] == span
    assert rois["LVC"] == (0, 26)
    assert rois["HVC"] == (26, 40)
    assert (rois["early"], rois["midventral"], rois["lateral"]) == ((0, 20), (20, 26), (26, 33))


def test_atlases_by_name(source: Path, tmp_path: Path) -> None:
    inside = nibabel.load(miniature.roi_folder(source) / "nsdgeneral.nii.gz")
    volume = np.zeros(inside.shape, np.int16)
    places = np.argwhere(inside.get_fdata() > 0)
    volume[tuple(places[3:8].T)], volume[tuple(places[30:33].T)] = 1, 180
    nibabel.save(nibabel.Nifti1Image(volume, inside.affine), miniature.roi_folder(source) / "HCP_MMP1.nii.gz")
    labels = source / "nsddata/freesurfer/fsaverage/label/HCP_MMP1.mgz.ctab"
    labels.write_text("0 Unknown 0 0 0 0\n1 V1 63 5 255 0\n180 p24 71 72 70 0\n")
    data, _report = prepared(source, tmp_path / "data", atlas=("Kastner2015", "HCP_MMP1"))
    assert data.layout.rois is not None
    assert data.layout.rois["V1"] == (0, 12)
    assert data.layout.rois["HCP_MMP1 V1"] == (3, 8)
    assert data.layout.rois["p24"] == (30, 33)
    assert "early" not in data.layout.rois
    with pytest.raises(FileError, match="visualsulc is missing from .*it holds HCP_MMP1, Kastner2015"):
        prepared(source, tmp_path / "other", atlas=("visualsulc",))


def test_another_mask(original: Path, tmp_path: Path) -> None:
    data, _report = prepared(original, tmp_path / "data", mask=("prf-visualrois",))
    assert data.layout.shape == (26,)
    whole, _report = prepared(original, tmp_path / "whole")
    np.testing.assert_array_equal(data.responses("test"), whole.responses("test")[:, :26])


@pytest.mark.parametrize(("n_sessions", "split"), [(37, "8859 training and 982 test"), (40, "9000 and 1000"), (36, "")])
def test_the_published_splits_are_named(n_sessions: int, split: str) -> None:
    paths = {number: Path(f"betas_session{number:02d}.hdf5") for number in range(1, n_sessions + 1)}
    note = split_note(paths, 1)
    assert note.startswith(f"{n_sessions} sessions (1-{n_sessions})")
    assert ("as in publications" in note) == bool(split)
    assert split in note
    assert "publications" not in split_note(paths, 3)


def test_a_subjects_own_retinotopy_counts_before_the_atlas(source: Path, tmp_path: Path) -> None:
    path = miniature.roi_folder(source) / "prf-visualrois.nii.gz"
    image = nibabel.load(path)
    volume = np.asanyarray(image.dataobj).copy()
    inside = np.argwhere(nibabel.load(miniature.roi_folder(source) / "nsdgeneral.nii.gz").get_fdata() > 0)
    volume[tuple(inside[30])] = 1  # LO by the atlas, V1v by its pRF
    nibabel.save(nibabel.Nifti1Image(volume, image.affine), path)
    data, _report = prepared(source, tmp_path / "data")
    assert data.layout.rois is not None
    assert data.layout.rois["V1"] == frozenset([*range(12), 30])


def test_the_noise_ceiling_is_that_of_the_means(original: Path, tmp_path: Path) -> None:
    data, _report = prepared(original, tmp_path / "data", averages=("test",))
    single = np.linspace(0.1, 0.8, 40)
    np.testing.assert_allclose(data.noise_ceiling("train"), single, rtol=1e-5)
    np.testing.assert_allclose(data.noise_ceiling("test"), single / (single + (1 - single) / 3), rtol=1e-5)


@pytest.mark.parametrize("which", ["training", "all"])
def test_z_scores_by_session(original: Path, tmp_path: Path, which: str) -> None:
    plain, _report = prepared(original, tmp_path / "plain", averages=())
    data, report = prepared(original, tmp_path / "data", averages=(), z_score=which)
    order = loadmat(original / DESIGN)["masterordering"].reshape(-1) - 1
    is_train = order >= miniature.N_TEST
    whole = np.empty((110, 40))
    whole[is_train], whole[~is_train] = plain.responses("train"), plain.responses("test")
    for session in (slice(0, 55), slice(55, 110)):
        part = whole[session]
        of = part[is_train[session]] if which == "training" else part
        whole[session] = (part - of.mean(axis=0)) / of.std(axis=0)
    np.testing.assert_allclose(data.responses("train"), whole[is_train], atol=1e-5)
    np.testing.assert_allclose(data.responses("test"), whole[~is_train], atol=1e-5)
    assert any(note.startswith("leak:") for note in report.notes) == (which == "all")
    assert data.provenance["settings"]["z_score"] == which


def test_a_voxel_outside_the_volume_of_a_session_is_reported(source: Path, tmp_path: Path) -> None:
    inside = np.argwhere(nibabel.load(miniature.roi_folder(source) / "nsdgeneral.nii.gz").get_fdata() > 0)
    i, j, k = inside[5]

    def without(betas: Any) -> Any:
        betas[:, k, j, i] = 0
        return betas

    rewrite(session(source), without)
    _data, report = prepared(source, tmp_path / "data")
    assert "0 in every training trial of some session: voxel 5" in report.notes


def test_fewer_sessions(original: Path, tmp_path: Path) -> None:
    data, report = prepared(original, tmp_path / "data", sessions=(2,))
    assert list(report.pieces) == ["session02"]
    order = loadmat(original / DESIGN)["masterordering"].reshape(-1)[55:] - 1
    assert len(data.responses("test")) == len(set(order[order < miniature.N_TEST]))
    assert len(data.responses("train")) == len(set(order[order >= miniature.N_TEST]))


def test_one_caption_for_all(source: Path, tmp_path: Path) -> None:
    shutil.rmtree(source / "nsddata_stimuli/stimuli/nsd/annotations")
    data, _report = prepared(source, tmp_path / "data", caption="a photograph")
    assert data.captions("train") == [["a photograph"]] * miniature.N_TRAIN


def test_styvesgs_stimuli(source: Path, tmp_path: Path) -> None:
    miniature.to_styvesg(source)
    data, _report = prepared(source, tmp_path / "data")
    check(data)
    assert (tmp_path / "data/stimuli/train/000039.png").exists()


def test_brain_diffusers_arrays(source: Path, tmp_path: Path) -> None:
    miniature.to_brain_diffuser(source, miniature.subject())
    data, report = prepared(source, tmp_path / "data")
    check(data, tolerance=1e-6)
    assert places(data, "train") == list(range(miniature.N_TRAIN))
    assert data.layout.voxels is not None
    assert data.layout.rois is not None
    assert data.layout.rois["V1"] == (0, 12)
    assert "divided by 300" in " ".join(report.notes)


def test_mind_diffusers_arrays(tmp_path: Path) -> None:
    miniature.to_mind_diffuser(tmp_path / "arrays", miniature.subject())
    data, _report = prepared(tmp_path / "arrays", tmp_path / "data", coco=tmp_path / "arrays/coco")
    made = miniature.subject()
    columns = np.concatenate([np.arange(*miniature.AREAS[area]) for area in ("V1", "V2", "LO", "IPS", "hV4")])
    expected = miniature.means(made.responses["train"])[:, columns]
    np.testing.assert_allclose(data.responses("train"), expected, rtol=1e-6, atol=1e-6)
    assert places(data, "test") == list(range(miniature.N_TEST))
    assert data.captions("test") == [list(texts) for texts in made.pictures["test"].captions]
    rois = data.layout.rois
    assert rois is not None
    assert (rois["LO"], rois["hV4"]) == ((20, 27), (34, 40))
    assert rois["LVC"] == frozenset([*range(20), *range(34, 40)])


def test_arrays_that_are_prepared_take_no_options_of_sessions(source: Path, tmp_path: Path) -> None:
    miniature.to_brain_diffuser(source, miniature.subject())
    with pytest.raises(InputError, match="--sessions is given"):
        prepared(source, tmp_path / "data", sessions=(1,))


def test_a_session_that_does_not_fit_is_refused(original: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"55 trials of 40 voxels takes 0 MB: give four times .*1MB, or a smaller"):
        prepared(original, tmp_path / "data", memory=8_000)


def test_numbers_of_sessions() -> None:
    assert sessions_of("1-3,7") == (1, 2, 3, 7)
    assert spans([1, 2, 3, 7]) == "1-3,7"
    for text in ("0-3", "3-1", "a", "1,,2", ""):
        with pytest.raises(InputError, match="cannot be read"):
            sessions_of(text)


Change = Callable[[Path], object]


def session(source: Path, number: int = 2) -> Path:
    return miniature.beta_folder(source) / f"betas_session{number:02d}.hdf5"


def rewrite(path: Path, change: Callable[[Any], Any], name: str = "betas") -> None:
    """Change the data set of an HDF5 file."""
    with h5py.File(path) as file:
        content = change(file[name][:])
    with h5py.File(path, "w") as file:
        file[name] = content


def redesign(source: Path, **changes: Callable[[Any], Any]) -> None:
    content = loadmat(source / DESIGN)
    arrays = {name: content[name] for name in ("masterordering", "subjectim", "sharedix")}
    savemat(source / DESIGN, arrays | {name: change(arrays[name]) for name, change in changes.items()})


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def eeg_dictionary(path: Path) -> None:
    """What THINGS-EEG2 is published as."""
    content = np.array({"preprocessed_eeg_data": np.zeros((2, 4, 3, 5)), "ch_names": ["O1", "Oz", "O2"]})
    with open(path, "wb") as file:
        np.save(file, content, allow_pickle=True)


def other_pictures(source: Path) -> None:
    rewrite(source / STIMULI, lambda stack: np.concatenate([stack, stack[:4]]), "imgBrick")


WRONG: dict[str, tuple[Change, str]] = {
    "an EEG dictionary as a session": (
        lambda s: eeg_dictionary(session(s)),
        r"betas_session02.hdf5 is a Python object pickled into a .npy file, as THINGS-EEG2's .*expected HDF5",
    ),
    "a session of NaN": (
        lambda s: rewrite(session(s), lambda betas: np.full(betas.shape, np.nan, np.float32)),
        r"session02 is NaN or infinite in all of its 55 trials .*leave it out with --sessions 1",
    ),
    "a session of zeros": (
        lambda s: rewrite(session(s), lambda betas: betas * 0),
        r"session02 holds one value in all voxels of each of its 55 trials",
    ),
    "a truncated session": (lambda s: miniature.cut(session(s)), r"betas_session02.hdf5 is truncated or damaged"),
    "an empty session": (lambda s: put(session(s), b""), r"betas_session02.hdf5 is empty, expected HDF5"),
    "a web page": (
        lambda s: put(session(s), b"<!doctype html><html>no access</html>"),
        r"betas_session02.hdf5 is a web page, perhaps of a failed download",
    ),
    "fewer trials": (
        lambda s: rewrite(session(s), lambda betas: betas[:50]),
        r"betas_session02.hdf5 has 50 trials and other sessions have 55: it is truncated",
    ),
    "another data set in the file": (
        lambda s: shutil.copy(s / STIMULI, session(s)),
        r"betas_session02.hdf5 holds imgBrick, expected HDF5 with a data set betas",
    ),
    "axes not reversed": (
        lambda s: rewrite(session(s), lambda betas: betas.transpose(0, 3, 2, 1)),
        r"betas_session02.hdf5 is \(55, .*with the axes of the masks .* in the wrong order: NSD's are "
        r"\(trials, Z, Y, X\)",
    ),
    "another subject's betas": (
        lambda s: rewrite(session(s), lambda betas: betas[:, 1:]),
        r"it is of another subject or another space than the masks, check --subject",
    ),
    "voxels mixed up": (
        lambda s: rewrite(session(s), shifted),
        r"is 0 in every trial in .* voxels .*: the mask is of another subject or the axes are mixed up",
    ),
    "a gap between sessions": (
        lambda s: session(s, 1).rename(session(s, 3)),
        r"sessions 1 are missing from .*which has 2-3: .*give --sessions 2-3",
    ),
    "no sessions": (
        lambda s: shutil.rmtree(miniature.beta_folder(s)),
        r"holds no session of betas: put betas_session01.hdf5 .*s3://natural-scenes-dataset/nsddata_betas",
    ),
    "pictures counted from 0": (
        lambda s: redesign(s, subjectim=lambda ids: ids - ids.min()),
        r"subjectim in .*runs from 0 to .*they seem to count from 0, add 1",
    ),
    "the order counted from 0": (
        lambda s: redesign(s, masterordering=lambda order: order - 1),
        r"masterordering in .* runs from 0 to 49, expected 1 to 50: they seem to count from 0",
    ),
    "shared pictures counted from 0": (
        lambda s: redesign(s, sharedix=lambda ids: ids - 1),
        r"the first 10 pictures of subject 1 .* are not those of sharedix: one of the two counts from 0",
    ),
    "another design": (
        lambda s: redesign(s, masterordering=lambda order: order[:, :-1]),
        r"the betas have 55 trials a session up to session 2, and the experimental design 109 trials",
    ),
    "a design that is something else": (
        lambda s: eeg_dictionary(s / DESIGN),
        r"nsd_expdesign.mat is a Python object pickled .*expected NSD's nsd_expdesign.mat",
    ),
    "no design": (
        lambda s: (s / DESIGN).unlink(),
        r"NSD's experimental design is missing: put nsd_expdesign.mat into .*s3://natural-scenes-dataset/nsddata",
    ),
    "another set of pictures": (other_pictures, r"speaks of 55 pictures and the stimuli are 59: one of the two is of"),
    "too few pictures": (
        lambda s: rewrite(s / STIMULI, lambda stack: stack[:20], "imgBrick"),
        r"nsd_stimuli.hdf5 holds 20 pictures and subject 1 saw number \d+, counted from 0",
    ),
    "pictures with channels first": (
        lambda s: rewrite(s / STIMULI, lambda stack: stack.transpose(0, 3, 1, 2), "imgBrick"),
        r"imgBrick in .* is uint8 \(55, 3, 12, 12\), expected pictures \(n, H, W, 3\) uint8",
    ),
    "a mask of another space": (
        lambda s: nibabel.save(
            nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), miniature.roi_folder(s) / "streams.nii.gz"
        ),
        r"streams in .* is \(3, 4, 5\) and the mask .*: one of them is of another space or subject",
    ),
    "no mask": (
        lambda s: (miniature.roi_folder(s) / "nsdgeneral.nii.gz").unlink(),
        r"nsdgeneral is missing from .*it holds Kastner2015, prf-visualrois, streams",
    ),
    "a truncated mask": (
        lambda s: miniature.cut(miniature.roi_folder(s) / "nsdgeneral.nii.gz"),
        r"the mask nsdgeneral at .* is .*copy it again",
    ),
    "names of regions missing": (
        lambda s: (s / "nsddata/freesurfer/fsaverage/label/Kastner2015.mgz.ctab").unlink(),
        r"the table of the regions of Kastner2015 is missing: put Kastner2015.mgz.ctab into",
    ),
    "COCO's instances": (
        lambda s: put(
            s / "nsddata_stimuli/stimuli/nsd/annotations/captions_train2017.json",
            b'{"annotations": [{"id": 1, "image_id": 3, "bbox": [1, 2, 3, 4]}]}',
        ),
        r"captions_train2017.json has no caption of any of .*give COCO's captions of 2017",
    ),
    "a truncated file of captions": (
        lambda s: miniature.cut(s / "nsddata_stimuli/stimuli/nsd/annotations/captions_train2017.json"),
        r"captions_train2017.json is truncated or damaged",
    ),
    "a table of other columns": (
        lambda s: put(s / "nsddata/experiments/nsd/nsd_stim_info_merged.csv", b"a,b\n1,2\n"),
        r"nsd_stim_info_merged.csv has no column nsdId",
    ),
}


def shifted(betas: Any) -> Any:
    """The same betas with every voxel of the mask empty that can be: moved to where the volume is empty."""
    used = (betas != 0).any(axis=0)
    moved = np.zeros_like(betas)
    free, taken = np.argwhere(~used), np.argwhere(used)
    for target, place in zip(free, taken, strict=False):
        moved[(slice(None), *target)] = betas[(slice(None), *place)]
    first = tuple(taken[0])
    moved[(slice(None), *first)] = betas[(slice(None), *first)]
    return moved


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named(source: Path, tmp_path: Path, name: str) -> None:
    change, message = WRONG[name]
    change(source)
    with pytest.raises(FileError, match=message):
        prepared(source, tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (miniature.cut, r"betas_session02.nii.gz at .* is truncated or damaged \(.*\): copy it again"),
        (lambda path: put(path, b""), r"is empty, expected a NIfTI image"),
    ],
)
def test_a_wrong_nifti_session_is_named(source: Path, tmp_path: Path, change: Change, message: str) -> None:
    miniature.to_nifti(source)
    change(miniature.beta_folder(source) / "betas_session02.nii.gz")
    with pytest.raises(FileError, match=message):
        prepared(source, tmp_path / "data")


def test_a_nifti_session_with_reversed_axes_is_named(source: Path, tmp_path: Path) -> None:
    miniature.to_nifti(source)
    path = miniature.beta_folder(source) / "betas_session01.nii.gz"
    betas = np.asanyarray(nibabel.load(path).dataobj).transpose(2, 1, 0, 3)
    nibabel.save(nibabel.Nifti1Image(betas, np.eye(4)), path)
    with pytest.raises(FileError, match=r"in the wrong order: NSD's are \(X, Y, Z, trials\)"):
        prepared(source, tmp_path / "data")


TEST_ROWS = "nsd_test_fmriavg_nsdgeneral_sub1.npy"
TRAIN_ROWS = "nsd_train_fmriavg_nsdgeneral_sub1.npy"
WRONG_ARRAYS: dict[str, tuple[Change, str]] = {
    "an EEG dictionary": (
        lambda place: eeg_dictionary(place / TRAIN_ROWS),
        r"nsd_train_fmriavg_nsdgeneral_sub1.npy is a Python object pickled into a .npy file, as THINGS-EEG2's",
    ),
    "EEG epochs": (
        lambda place: np.save(place / TRAIN_ROWS, np.zeros((40, 4, 17, 10))),
        r"is a NumPy array float64 \(40, 4, 17, 10\) \(EEG epochs look like that",
    ),
    "the test responses as training": (
        lambda place: shutil.copy(place / TEST_ROWS, place / TRAIN_ROWS),
        r"nsd_train_stim_sub1.npy is of 40 pictures and .*nsd_train_fmriavg.* of 10, both as the train split",
    ),
    "another subject's test responses": (
        lambda place: np.save(place / TEST_ROWS, np.random.default_rng(1).normal(0, 300, (10, 39))),
        r"has 40 voxels and .* has 39: one of them is of another subject or mask",
    ),
    "test responses on another scale": (
        lambda place: np.save(place / TEST_ROWS, np.load(place / TEST_ROWS) / 300),
        r"nsd_train_fmriavg.* has a standard deviation of 3.* and .*nsd_test_fmriavg.*: they are on different scales",
    ),
    "an array of another subject": (
        lambda place: (place / TEST_ROWS).rename(place / TEST_ROWS.replace("sub1", "sub2")),
        r"nsd_test_fmriavg_nsdgeneral_sub2.npy is of subject 2 by its name, and --subject is 1: give one subject",
    ),
    "a truncated array": (
        lambda place: miniature.cut(place / TRAIN_ROWS),
        r"nsd_train_fmriavg_nsdgeneral_sub1.npy is truncated \(its header says float64 \(40, 40\)\)",
    ),
    "rows of NaN": (
        lambda place: np.save(place / TRAIN_ROWS, np.full((40, 40), np.nan)),
        r"train-000000 is NaN or infinite in all of its 40 trials",
    ),
    "pictures normalised for a network": (
        lambda place: np.save(place / "nsd_train_stim_sub1.npy", np.random.default_rng(1).normal(size=(40, 12, 12, 3))),
        r"has values from -.*they seem to be normalised for a network",
    ),
    "captions as Python objects": (
        lambda place: np.save(place / "nsd_train_cap_sub1.npy", np.array([["a"]] * 40, object), allow_pickle=True),
        r"nsd_train_cap_sub1.npy is a Python object pickled into a .npy file",
    ),
    "no captions": (
        lambda place: (place / "nsd_train_cap_sub1.npy").unlink(),
        r"the train arrays have no captions: add them as texts \(n, k\), or give --caption TEXT",
    ),
    "no pictures": (
        lambda place: (place / "nsd_test_stim_sub1.npy").unlink(),
        r"has no array of the test split's pictures: expected responses",
    ),
}


@pytest.mark.parametrize("name", WRONG_ARRAYS)
def test_a_wrong_array_is_named(source: Path, tmp_path: Path, name: str) -> None:
    place = miniature.to_brain_diffuser(source, miniature.subject())
    change, message = WRONG_ARRAYS[name]
    change(place)
    with pytest.raises(FileError, match=message):
        prepared(source, tmp_path / "data")


def test_the_folder_of_another_subject_is_refused(source: Path, tmp_path: Path) -> None:
    place = miniature.to_brain_diffuser(source, miniature.subject())
    with pytest.raises(FileError, match="is of subject 1 by its name, and --subject is 2"):
        open_nsd(place, subject=2, memory=10**6)


def test_areas_of_one_split_only_are_refused(tmp_path: Path) -> None:
    miniature.to_mind_diffuser(tmp_path / "arrays", miniature.subject())
    (tmp_path / "arrays/val_voxel_multi_trial_data_LO.npy").unlink()
    with pytest.raises(FileError, match="has 5 arrays of training responses and 4 of test responses"):
        prepared(tmp_path / "arrays", tmp_path / "data", coco=tmp_path / "arrays/coco")


def test_an_area_of_another_name_is_refused(tmp_path: Path) -> None:
    miniature.to_mind_diffuser(tmp_path / "arrays", miniature.subject())
    for path in (tmp_path / "arrays").glob("*_data_LO.npy"):
        path.rename(path.with_name(path.name.replace("LO", "XY")))
    with pytest.raises(FileError, match="has responses of XY, which is no area"):
        prepared(tmp_path / "arrays", tmp_path / "data", coco=tmp_path / "arrays/coco")
