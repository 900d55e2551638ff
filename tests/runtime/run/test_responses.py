import json
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from small_data import write_small_data

from minddiffuser.runtime.data.folder import open_data
from minddiffuser.runtime.errors import FileError, InputError, MindDiffuserError, ShapeError
from minddiffuser.runtime.images import write_png
from minddiffuser.runtime.run.responses import Responses, open_responses, read_stimuli, with_pictures, with_trial_ids

ROWS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def test_every_format_gives_the_same_trials(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    np.savez(tmp_path / "b.npz", responses=ROWS)
    save_file({"responses": ROWS}, tmp_path / "c.safetensors")
    save_file({f"{t:03d}": np.ascontiguousarray(ROWS[t]) for t in (2, 0, 1)}, tmp_path / "d.safetensors")
    opened = [open_responses(path) for path in sorted(tmp_path.iterdir())]
    assert all((np.stack(list(one.rows)) == ROWS).all() for one in opened)
    assert len({one.hash for one in opened}) == 1


def write_data(folder: Path) -> Path:
    return write_small_data(folder / "data", ROWS, provenance={"kind": "simulated fMRI"}).folder


def write_png_of(path: Path, level: int) -> None:
    write_png(path, np.full((8, 12, 3), level, np.uint8))


def test_a_data_folder_knows_what_each_trial_showed(tmp_path: Path) -> None:
    given = open_responses(write_data(tmp_path))
    assert (given.subject, given.simulated, given.brain) == ("someone", True, "clip")
    assert given.captions == (("thing 1",), ("thing 0",), ("thing 1",))
    assert given.pictures is not None
    pictures = read_stimuli(given.pictures, 4)
    assert pictures.shape == (3, 4, 4, 3)
    assert pictures[:, 0, 0, 0].tolist() == [40, 0, 40]


def test_own_pictures_replace_those_of_the_data(tmp_path: Path) -> None:
    given = open_responses(write_data(tmp_path))
    for index, name in enumerate(("b.png", "a.png", "c.png")):
        write_png_of(tmp_path / "mine" / name, index)
    shown = with_pictures(given, tmp_path / "mine")
    assert [path.name for path in shown.pictures or ()] == ["a.png", "b.png", "c.png"]
    assert shown.captions == ()
    (tmp_path / "mine" / "c.png").unlink()
    with pytest.raises(InputError, match="2 pictures and there are 3 trials"):
        with_pictures(given, tmp_path / "mine")


@pytest.mark.parametrize(
    ("ids", "files"),
    [
        (("10", "2", "1"), ("010.png", "002.png", "001.png")),
        (("Cat", "dog", "ELK"), ("cat.png", "Dog.png", "elk.png")),
        (("cat", "Cat", "dog"), ("cat.png", "Cat.png", "dog.png")),
        (
            ("test/10/mean", "test/2/mean", "test/2/mean-1"),
            ("test-10-mean.png", "test_2_mean.png", "test_2_mean_1.png"),
        ),
        (("s1/003", "s1/02", "s10/1"), ("S01-3.png", "s1_2.png", "s10_001.png")),
    ],
)
def test_own_pictures_are_found_by_ids_that_are_spelt_otherwise(
    ids: tuple[str, ...], files: tuple[str, ...], tmp_path: Path
) -> None:
    for index, name in enumerate(files):
        write_png_of(tmp_path / name, index)
    shown = with_pictures(Responses(rows=ROWS, hash="", trial_ids=ids), tmp_path)
    assert [path.name for path in shown.pictures or ()] == list(files)
    assert shown.warnings == ()


def test_pictures_in_their_own_order_are_reported_where_trials_have_ids(tmp_path: Path) -> None:
    for index, name in enumerate(("b.png", "a.png", "c.png")):
        write_png_of(tmp_path / "mine" / name, index)
    assert with_pictures(Responses(rows=ROWS, hash=""), tmp_path / "mine").warnings == ()
    named = Responses(rows=ROWS, hash="", trial_ids=("10", "2", "1"))
    shown = with_pictures(named, tmp_path / "mine")
    assert [path.name for path in shown.pictures or ()] == ["a.png", "b.png", "c.png"]
    (warning,) = shown.warnings
    assert "named by a trial's id (such as '10'), so they are taken in the order of their names" in warning
    (tmp_path / "mine" / "c.png").rename(tmp_path / "mine" / "002.png")
    with pytest.raises(InputError, match=r"1 of the 3 pictures .* \(a\): name each by its trial's id"):
        with_pictures(named, tmp_path / "mine")
    (tmp_path / "mine" / "a.png").rename(tmp_path / "mine" / "2.png")
    (tmp_path / "mine" / "b.png").rename(tmp_path / "mine" / "1.png")
    with pytest.raises(InputError, match="two have one name"):
        with_pictures(named, tmp_path / "mine")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "other"}, "not a MindDiffuser data"),
        ({"version": 3}, "version 3"),
        ({"response_shape": [5]}, r", 4\), expected float32 \(\d+, 5\)"),
        ({"response_shape": [2, 2]}, r"fmri has \(n_voxels,\)"),
        ({"modality": "eeg"}, r"eeg has \(n_channels, n_times\)"),
        ({"subject": None}, "subject"),
        ({"image_size": 9}, "image_size is 9"),
        ({"rois": {"V1": [1, 5]}}, "'V1' spans voxels 1 to 5, and there are 4"),
        ({"splits": {"train": {"n_trials": 10}, "test": {"n_trials": 2}}}, r"\(3, 4\), expected float32 \(2, 4\)"),
        ({"splits": {"train": {"n_trials": 9}, "test": {"n_trials": 3}}}, r"\(10, 4\), expected float32 \(9, 4\)"),
        ({"provenance": [1]}, "provenance"),
    ],
)
def test_other_data_folders_are_refused_as_fit_refuses_them(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    folder = write_data(tmp_path)
    path = folder / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for opened in (open_responses, open_data):
        with pytest.raises(FileError, match=reason):
            opened(folder)


def test_trials_of_channels_and_times(tmp_path: Path) -> None:
    trials = np.random.default_rng(1).standard_normal((5, 3, 7)).astype(np.float32)
    np.save(tmp_path / "all.npy", trials)
    np.savez(tmp_path / "each.npz", **{f"trial-{k}": trial for k, trial in enumerate(trials)})
    for name in ("all.npy", "each.npz"):
        given = open_responses(tmp_path / name)
        np.testing.assert_array_equal(np.stack(list(given.rows)), trials)
        assert given.layout is None
    np.savez(tmp_path / "mixed.npz", a=trials[0], b=trials[1, 0])
    with pytest.raises(ShapeError, match=r"one \(n_voxels,\) per trial; of EEG and MEG \(n_channels, n_times\)"):
        open_responses(tmp_path / "mixed.npz")


def test_a_layout_comes_with_a_data_folder(tmp_path: Path) -> None:
    folder = write_data(tmp_path)
    assert open_responses(folder).layout == open_data(folder).layout


def test_a_root_of_pictures_needs_a_folder_that_names_some(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", ROWS)
    with pytest.raises(InputError, match="--stimuli-root goes with a data folder"):
        open_responses(tmp_path / "r.npy", stimuli_root=tmp_path)
    with pytest.raises(FileError, match="lie in it, not elsewhere: leave --stimuli-root out"):
        open_responses(write_data(tmp_path / "data"), stimuli_root=tmp_path)


@pytest.mark.parametrize("name", ["test.safetensors", "stimuli/test/000000.png", "data.json", "captions.json"])
def test_an_incomplete_data_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_data(tmp_path)
    (folder / name).unlink()
    with pytest.raises(FileError, match=r"missing|000001.png where 000000.png"):
        open_responses(folder)


@pytest.mark.parametrize("captions", [{"train": [], "test": [["a"]]}, {"train": [], "test": [["a"], []]}, {"test": []}])
def test_broken_captions_are_refused(tmp_path: Path, captions: object) -> None:
    folder = write_data(tmp_path)
    (folder / "captions.json").write_text(json.dumps(captions))
    with pytest.raises(FileError, match="captions"):
        open_responses(folder)


def test_a_run_needs_no_train_split(tmp_path: Path) -> None:
    folder = write_data(tmp_path)
    whole = open_responses(folder)
    (folder / "train.safetensors").unlink()
    shutil.rmtree(folder / "stimuli" / "train")
    alone = open_responses(folder)
    assert (alone.hash, alone.captions, alone.pictures) == (whole.hash, whole.captions, whole.pictures)
    with pytest.raises(FileError, match="train"):
        open_data(folder)
    with pytest.raises(InputError, match="train split of .* was not opened"):
        open_data(folder, splits=["test"]).responses("train")


def test_a_run_reads_nothing_of_the_train_split_but_its_header(tmp_path: Path) -> None:
    folder = write_data(tmp_path)
    path = folder / "train.safetensors"
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:header] + b"\xff" * (len(content) - header))  # NaN, and indices of no picture
    assert len(open_responses(folder).rows) == 3
    with pytest.raises(FileError, match="train.safetensors"):
        open_data(folder)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (ROWS[0], r"\(4,\): expected \(n_trials, n_voxels\)"),
        (ROWS[None, None], r"\(1, 1, 3, 4\)"),
        (ROWS.astype(np.int16), "int16"),
        (ROWS.astype(complex), "complex128"),
        (ROWS > 0, "bool"),
        (ROWS.astype(str), "<U"),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_other_ranks_and_dtypes_are_refused(tmp_path: Path, array: np.ndarray, reason: str, kind: str) -> None:
    path = tmp_path / f"r.{kind}"
    np.save(path, array) if kind == "npy" else np.savez(path, responses=array)
    with pytest.raises(ShapeError, match=reason):
        open_responses(path)


@pytest.mark.parametrize("name", ["r.npy", "r.npz", "r.safetensors"])
@pytest.mark.parametrize("keep", [0, 20, -7])
def test_truncated_files_are_refused(tmp_path: Path, name: str, keep: int) -> None:
    path = tmp_path / name
    if name == "r.npy":
        np.save(path, ROWS)
    elif name == "r.npz":
        np.savez(path, responses=ROWS)
    else:
        save_file({"responses": ROWS}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FileError, match="r\\."):
        open_responses(path)


@pytest.mark.parametrize("name", ["r.npy", "r.npz"])
def test_python_objects_are_never_read(tmp_path: Path, name: str) -> None:
    array = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / name, array) if name == "r.npy" else np.savez(tmp_path / name, responses=array)
    with pytest.raises(FileError, match="Python objects .*, which are never opened; save one plain float32") as caught:
        open_responses(tmp_path / name)
    assert "allow_pickle" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".h5", ".mat", ".csv", ""])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "are an HDF5 file.*h5py"),
        (pickle.dumps({"responses": [1.0]}), "are a Python pickle.* never opened"),
        (b"V1,V2\n0.5,1.5\n", "are a table in text.*numpy.loadtxt"),
        (bytes(range(256)), "are of no known kind"),
        (b"", "are empty"),
    ],
    ids=["hdf5", "pickle", "csv", "noise", "empty"],
)
def test_a_file_is_what_it_holds_whatever_its_name(tmp_path: Path, content: bytes, reason: str, suffix: str) -> None:
    path = tmp_path / f"r{suffix}"
    path.write_bytes(content)
    with pytest.raises(FileError, match=reason) as caught:
        open_responses(path)
    assert "allow_pickle" not in str(caught.value)
    assert ".safetensors, .npz, .npy" in str(caught.value)


@pytest.mark.parametrize(("name", "right"), [("r.npy", ".npz"), ("r.npz", ".npy"), ("r.safetensors", ".npy")])
def test_an_array_under_another_name_is_reported_its_name(tmp_path: Path, name: str, right: str) -> None:
    with open(tmp_path / name, "wb") as file:
        np.savez(file, responses=ROWS) if right == ".npz" else np.save(file, ROWS)
    with pytest.raises(FileError, match=f"name it {right}"):
        open_responses(tmp_path / name)


def test_changed_bytes_of_array_files_are_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", ROWS)
    np.savez(tmp_path / "r.npz", responses=ROWS)
    rng = random.Random(0)
    refused = 0
    for name in ("r.npy", "r.npz"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(400):
            changed = bytearray(whole)
            changed[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
            (tmp_path / name).write_bytes(changed)
            try:
                open_responses(tmp_path / name)
            except MindDiffuserError as error:
                refused += 1
                assert "\n" not in str(error)  # noqa: PT017 - where it opens, a value has changed
    assert refused > 300


def test_a_size_beyond_the_file_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", ROWS)
    whole = (tmp_path / "r.npy").read_bytes()
    (tmp_path / "r.npy").write_bytes(whole.replace(b"(3, 4), }         ", b"(3000000000, 4), }"))
    with pytest.raises(FileError, match="truncated or damaged"):
        open_responses(tmp_path / "r.npy")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"absent.npy do not exist: .*\.safetensors, \.npz, \.npy"):
        open_responses(tmp_path / "absent.npy")


def test_arrays_of_many_trials_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    rows = np.arange(24, dtype=np.float32).reshape(12, 2)
    np.savez(tmp_path / "r.npz", **{f"trial{t}": rows[t] for t in reversed(range(12))})
    save_file({str(t): np.ascontiguousarray(rows[t]) for t in range(12)}, tmp_path / "r.safetensors")
    for name in ("r.npz", "r.safetensors"):
        assert (np.stack(list(open_responses(tmp_path / name).rows)) == rows).all()


@pytest.mark.parametrize("dtype", ["BF16", "F8_E5M2", "XYZ"])
def test_number_types_that_numpy_has_not_are_one_sentence(tmp_path: Path, dtype: str) -> None:
    size = {"BF16": 2}.get(dtype, 1)
    header = json.dumps({"responses": {"dtype": dtype, "shape": [2, 4], "data_offsets": [0, 8 * size]}}).encode()
    (tmp_path / "r.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8 * size))
    # Where ml_dtypes is installed (onnx brings it), numpy has bfloat16, and the kind of number is what is wrong.
    message = "save float32|truncated or damaged|are bfloat16: expected float32"
    with pytest.raises((FileError, ShapeError), match=message):
        open_responses(tmp_path / "r.safetensors")


def test_ids_come_from_the_file_that_has_them(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", ROWS)
    np.savez(tmp_path / "r.npz", **{name: ROWS[t] for t, name in enumerate(("b-2", "b-10", "a"))})
    assert open_responses(tmp_path / "r.npy").trial_ids == ("0", "1", "2")
    assert open_responses(tmp_path / "r.npy").named == {}
    named = open_responses(tmp_path / "r.npz")
    assert named.trial_ids == ("a", "b-2", "b-10")
    assert (np.stack(list(named.rows)) == ROWS[[2, 0, 1]]).all()
    folder = write_data(tmp_path / "data")  # pictures 1, 0, 1
    assert open_responses(folder).trial_ids == ("test/1/0", "test/0/0", "test/1/1")
    (folder / "trial_ids.json").write_text(json.dumps({"train": [], "test": ["x", "y", "z"]}))
    assert open_responses(folder).named == {0: "x", 1: "y", 2: "z"}
    (tmp_path / "ids.txt").write_text("one\ntwo\nthree\n")
    assert with_trial_ids(open_responses(folder), tmp_path / "ids.txt").trial_ids == ("one", "two", "three")


def test_a_data_folder_s_rois_come_with_it(tmp_path: Path) -> None:
    rois = {"V1": (0, 1), "V2": (1, 4)}
    assert open_responses(write_small_data(tmp_path / "data", ROWS, rois=rois).folder).layout.rois == rois
    np.save(tmp_path / "r.npy", ROWS)
    assert open_responses(tmp_path / "r.npy").layout is None


def test_pictures_named_by_ids_go_to_their_trials(tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", **{name: ROWS[t] for t, name in enumerate(("cat", "dog", "ant"))})
    given = open_responses(tmp_path / "r.npz")
    for name in ("zoo", "dog", "cat"):
        write_png_of(tmp_path / "mine" / f"{name}.png", 0)
    with pytest.raises(InputError, match=r"2 of the 3 pictures .* named by a trial's id .*\(zoo\)"):
        with_pictures(given, tmp_path / "mine")
    (tmp_path / "mine" / "zoo.png").rename(tmp_path / "mine" / "ant.png")
    shown = with_pictures(given, tmp_path / "mine")
    assert [path.stem for path in shown.pictures or ()] == list(given.trial_ids) == ["ant", "cat", "dog"]
    assert shown.trial_ids == given.trial_ids
    moved = with_trial_ids(given, write_lines(tmp_path / "ids.txt", "dog", "ant", "cat"))
    assert [path.stem for path in with_pictures(moved, tmp_path / "mine").pictures or ()] == ["dog", "ant", "cat"]


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path
