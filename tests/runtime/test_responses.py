import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minddiffuser.runtime.errors import FileError, InputError, ShapeError
from minddiffuser.runtime.images import write_png
from minddiffuser.runtime.responses import open_responses, seen, with_pictures, with_trial_ids

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
    for index in range(2):
        write_png_of(folder / "stimuli" / "test" / f"{index:06d}.png", 100 * index)
    tensors = {"responses": ROWS, "stimulus": np.array([1, 0, 1])}
    save_file(tensors, folder / "test.safetensors")
    description = {
        "format": "minddiffuser-data",
        "version": 1,
        "subject": "someone",
        "n_voxels": 4,
        "provenance": {"kind": "simulated fMRI"},
    }
    (folder / "data.json").write_text(json.dumps(description))
    (folder / "captions.json").write_text(json.dumps({"train": [], "test": [["a red cat"], ["a blue car"]]}))
    return folder


def write_png_of(path: Path, level: int) -> None:
    write_png(path, np.full((8, 12, 3), level, np.uint8))


def test_a_data_folder_knows_what_each_trial_showed(tmp_path: Path) -> None:
    given = open_responses(write_data(tmp_path))
    assert (given.subject, given.simulated) == ("someone", True)
    assert given.captions == (("a blue car",), ("a red cat",), ("a blue car",))
    assert given.pictures is not None
    pictures = seen(given.pictures, 4)
    assert pictures.shape == (3, 4, 4, 3)
    assert pictures[:, 0, 0, 0].tolist() == [100, 0, 100]


def test_own_pictures_replace_those_of_the_data(tmp_path: Path) -> None:
    given = open_responses(write_data(tmp_path / "data"))
    for index, name in enumerate(("b.png", "a.png", "c.png")):
        write_png_of(tmp_path / "mine" / name, index)
    shown = with_pictures(given, tmp_path / "mine")
    assert [path.name for path in shown.pictures or ()] == ["a.png", "b.png", "c.png"]
    assert shown.captions == ()
    (tmp_path / "mine" / "c.png").unlink()
    with pytest.raises(InputError, match="2 pictures and there are 3 trials"):
        with_pictures(given, tmp_path / "mine")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "other"}, "not a MindDiffuser data"),
        ({"version": 2}, "version 2"),
        ({"n_voxels": 5}, "has 4 voxels, data.json says 5"),
    ],
)
def test_other_data_folders_are_refused(tmp_path: Path, change: dict[str, object], told: str) -> None:
    path = write_data(tmp_path) / "data.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FileError, match=told):
        open_responses(tmp_path)


@pytest.mark.parametrize("name", ["test.safetensors", "stimuli/test/000001.png", "data.json"])
def test_an_incomplete_data_folder_is_refused(tmp_path: Path, name: str) -> None:
    (write_data(tmp_path) / name).unlink()
    with pytest.raises(FileError, match="missing"):
        open_responses(tmp_path)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (ROWS[0], r"\(4,\): expected \(n_trials, n_voxels\)"),
        (ROWS[None], r"\(1, 3, 4\)"),
        (ROWS.astype(np.int16), "int16"),
        (ROWS.astype(complex), "complex128"),
        (ROWS > 0, "bool"),
        (ROWS.astype(str), "<U"),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_other_ranks_and_dtypes_are_refused(tmp_path: Path, array: np.ndarray, told: str, kind: str) -> None:
    path = tmp_path / f"r.{kind}"
    np.save(path, array) if kind == "npy" else np.savez(path, responses=array)
    with pytest.raises(ShapeError, match=told):
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


def test_python_objects_are_never_read(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match="cannot be read"):
        open_responses(tmp_path / "r.npy")


@pytest.mark.parametrize("name", ["absent.npy", "text.csv"])
def test_a_missing_file_or_another_format_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.csv").write_text("1,2")
    with pytest.raises(FileError, match=r"\.safetensors, \.npz, \.npy"):
        open_responses(tmp_path / name)


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
    told = "save float32|truncated or damaged|are bfloat16: expected float32"
    with pytest.raises((FileError, ShapeError), match=told):
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


@pytest.mark.parametrize("rois", [{"V1": [0, 3]}, {"V1": [0, 2], "V2": [3, 4]}, {"V1": "all"}, [0, 4]])
def test_rois_that_do_not_fit_the_voxels_are_refused(tmp_path: Path, rois: object) -> None:
    path = write_data(tmp_path) / "data.json"
    assert open_responses(tmp_path).rois is None
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rois": {"V2": [3, 4], "V1": [0, 3]}}))
    assert list((open_responses(tmp_path).rois or {}).items()) == [("V1", (0, 3)), ("V2", (3, 4))]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rois": rois}))
    with pytest.raises(FileError, match=r"(?i)roi"):
        open_responses(tmp_path)


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
