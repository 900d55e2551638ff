"""A data folder comes back as it was written; each way to be wrong is one sentence that names it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from minddiffuser.runtime.data import folder as folder_module
from minddiffuser.runtime.data.destination import check_target, claimed
from minddiffuser.runtime.data.folder import SplitData, open_data, write_claimed, write_data
from minddiffuser.runtime.data.layout import Channel, ResponseLayout
from minddiffuser.runtime.data.references import refer
from minddiffuser.runtime.errors import FileError, InputError, MindDiffuserError
from minddiffuser.runtime.images import png_bytes, write_png
from minddiffuser.training.datasets.base import DATASETS, open_dataset

N_VOXELS, SIZE = 7, 12
ROIS = {"V1": (0, 4), "LO": (4, 7)}


def split(seed: int, n_stimuli: int, n_trials: int, *, captions: bool = True) -> SplitData:
    rng = np.random.default_rng(seed)
    return SplitData(
        responses=rng.standard_normal((n_trials, N_VOXELS), dtype=np.float32),
        stimulus=rng.integers(n_stimuli, size=n_trials),
        images=rng.integers(0, 256, (n_stimuli, SIZE, SIZE, 3), dtype=np.uint8),
        captions=[[f"picture {k}", "etwas Schönes"] for k in range(n_stimuli)] if captions else [],
        noise_ceiling=rng.random(N_VOXELS, dtype=np.float32) if captions else None,
    )


def write(folder: Path, **changes: Any) -> Any:
    splits = {"train": split(0, 4, 6), "test": split(1, 2, 3, captions=False)}
    return write_data(folder, changes.pop("splits", splits), **{"subject": "sub-01", "rois": ROIS, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "data", provenance={"scanner": "7 T"})
    return tmp_path / "data"


def test_round_trip(folder: Path) -> None:
    data = open_data(folder)
    for name, part in (("train", split(0, 4, 6)), ("test", split(1, 2, 3, captions=False))):
        np.testing.assert_array_equal(data.responses(name), part.responses)
        np.testing.assert_array_equal(data.stimulus(name), part.stimulus)
        np.testing.assert_array_equal(data.images(name), part.images)
        assert data.captions(name) == part.captions
        assert data.n_stimuli(name) == len(part.images)
        assert data.responses(name).dtype == np.float32
    assert (data.subject, data.layout.modality, data.layout.shape, data.layout.rois) == (
        "sub-01",
        "fmri",
        (N_VOXELS,),
        ROIS,
    )
    assert (data.image_size, data.provenance) == (SIZE, {"scanner": "7 T"})
    np.testing.assert_array_equal(data.noise_ceiling("train"), split(0, 4, 6).noise_ceiling)
    assert data.noise_ceiling("test") is None
    assert len(data.constant_places) == 0


def test_part_of_the_images(folder: Path) -> None:
    data = open_data(folder)
    np.testing.assert_array_equal(data.images("train", 1, 3), split(0, 4, 6).images[1:3])


@pytest.mark.parametrize("name", DATASETS)
def test_registered_data_sets_open(name: str, folder: Path) -> None:
    assert open_dataset(name, folder).layout.shape == (N_VOXELS,)
    with pytest.raises(InputError, match=name):
        open_dataset("nowhere", folder)


def test_unknown_split(folder: Path) -> None:
    data = open_data(folder)
    for method in (data.responses, data.images, data.captions, data.hash, data.stimulus, data.n_stimuli):
        with pytest.raises(InputError, match="'validation' is unknown: choose one of test, train"):
            method("validation")


def test_hash_follows_pictures_and_captions_only(folder: Path) -> None:
    before, everything = open_data(folder).hash("train"), open_data(folder).data_hash
    assert open_data(folder).hash("train") == before
    edit_tensors(folder, lambda arrays: arrays.update(responses=arrays["responses"] + 1))
    assert open_data(folder).hash("train") == before
    assert open_data(folder).data_hash != everything
    edit_json(folder / "captions.json", lambda texts: texts["train"][0].__setitem__(0, "another"))
    changed = open_data(folder).hash("train")
    assert changed != before
    write_png(folder / "stimuli/train/000003.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    assert open_data(folder).hash("train") not in (before, changed)
    assert open_data(folder).hash("test") != before


def test_hash_is_the_documented_one(folder: Path) -> None:
    digest = hashlib.sha256()
    for k in range(4):
        digest.update(hashlib.sha256((folder / f"stimuli/train/{k:06d}.png").read_bytes()).hexdigest().encode())
    digest.update(json.dumps(json.loads((folder / "captions.json").read_text())["train"]).encode())
    assert open_data(folder).hash("train") == digest.hexdigest()


def test_constant_places_are_listed_and_bad_test_trials_kept(tmp_path: Path) -> None:
    train, test = split(0, 4, 6), split(1, 2, 3, captions=False)
    train.responses[:, [2, 5]] = (3.0, 0.0)
    test.responses[1, 4] = np.nan
    data = write(tmp_path / "data", splits={"train": train, "test": test})
    assert data.constant_places.tolist() == [2, 5]
    np.testing.assert_array_equal(data.responses("test"), test.responses)


# ---- what open_data refuses -----------------------------------------------------------------------------------------


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_tensors(folder: Path, change: Callable[[dict[str, Any]], Any], name: str = "train") -> None:
    path = folder / f"{name}.safetensors"
    arrays = dict(load_file(path))
    change(arrays)
    save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, path)


def data_json(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "data.json", change)


def tensors(change: Callable[[dict[str, Any]], Any], name: str = "train") -> Callable[[Path], None]:
    return lambda folder: edit_tensors(folder, change, name)


def captions(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "captions.json", change)


def truncate(name: str, keep: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(len(whole) * keep)])

    return change


def put(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def nan(rows: Any, columns: Any) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays["responses"] = arrays["responses"].copy()
        arrays["responses"][rows, columns] = np.nan

    return change


def put_nan(folder: Path) -> None:
    text = (folder / "data.json").read_text()
    (folder / "data.json").write_text(text.replace('"7 T"', "NaN"))


def drop(name: str) -> Callable[[Any], Any]:
    return lambda content: content.pop(name)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no data.json": (lambda f: (f / "data.json").unlink(), "description is missing"),
    "no train": (lambda f: (f / "train.safetensors").unlink(), "train split is missing"),
    "no test": (lambda f: (f / "test.safetensors").unlink(), "test split is missing"),
    "no captions": (lambda f: (f / "captions.json").unlink(), "captions is missing"),
    "no stimulus": (lambda f: (f / "stimuli/train/000001.png").unlink(), "000002.png where 000001.png is expected"),
    "no last stimulus": (lambda f: (f / "stimuli/train/000003.png").unlink(), "showed stimulus 3|captions for 4"),
    "stray file": (put("stimuli/test/notes.txt", b"x"), "notes.txt where 000002.png"),
    "truncated json": (truncate("data.json", 0.5), "cannot be read"),
    "truncated tensors": (truncate("train.safetensors", 0.8), "truncated or damaged"),
    "truncated header": (truncate("test.safetensors", 0.01), "truncated or damaged"),
    "truncated picture": (truncate("stimuli/test/000000.png", 0.7), "000000.png is truncated"),
    "empty picture": (put("stimuli/test/000000.png", b""), "000000.png is not a PNG"),
    "not a picture": (put("stimuli/test/000001.png", b"hello " * 20), "000001.png is not a PNG"),
    "wrong picture size": (
        put("stimuli/train/000002.png", png_bytes(np.zeros((SIZE, SIZE + 1, 3), np.uint8))),
        "000002.png is 13 x 12 px",
    ),
    "json list": (put("data.json", b"[]"), "holds a list"),
    "other format": (data_json(lambda d: d.update(format="minddiffuser-run")), "not a MindDiffuser data"),
    "newer version": (data_json(lambda d: d.update(version=3)), "version 3, this release reads version 2"),
    "no subject": (data_json(drop("subject")), "subject in .* is missing or wrong"),
    "empty subject": (data_json(lambda d: d.update(subject="")), "subject"),
    "other modality": (data_json(lambda d: d.update(modality="eeg")), "rois are given for eeg|eeg has"),
    "unknown modality": (data_json(lambda d: d.update(modality="ecog")), "modality is 'ecog': give one of fmri, eeg"),
    "shape text": (data_json(lambda d: d.update(response_shape="7")), "response_shape is '7'"),
    "shape true": (data_json(lambda d: d.update(response_shape=[True])), "response_shape is .True."),
    "shape of eeg": (data_json(lambda d: d.update(response_shape=[7, 1])), r"fmri has \(n_voxels,\)"),
    "image_size 0": (data_json(lambda d: d.update(image_size=0)), "image_size"),
    "provenance list": (data_json(lambda d: d.update(provenance=[])), "provenance"),
    "splits list": (data_json(lambda d: d.update(splits=[])), "splits"),
    "no test count": (data_json(lambda d: d["splits"].pop("test")), "splits.test.n_trials"),
    "rois backwards": (data_json(lambda d: d["rois"].update(LO=[4, 4])), "'LO' spans voxels 4 to 4"),
    "rois beyond": (data_json(lambda d: d["rois"].update(LO=[4, 8])), "'LO' spans voxels 4 to 8, and there are 7"),
    "rois list": (data_json(lambda d: d.update(rois=[[0, 7]])), "rois is"),
    "rois text": (data_json(lambda d: d["rois"].update(LO="4:7")), "give .start, stop."),
    "shape other": (data_json(lambda d: d.update(response_shape=[9])), r"\(6, 9\)"),
    "n_trials other": (data_json(lambda d: d["splits"]["train"].update(n_trials=5)), r"\(6, 7\), expected .* \(5, 7\)"),
    "responses missing": (tensors(drop("responses")), "no array 'responses'"),
    "stimulus missing": (tensors(drop("stimulus")), "no array 'stimulus'"),
    "responses rank": (tensors(lambda a: a.update(responses=a["responses"].reshape(-1))), r"\(42,\)"),
    "responses dtype": (tensors(lambda a: a.update(responses=a["responses"].astype(np.float64))), "float64"),
    "stimulus dtype": (tensors(lambda a: a.update(stimulus=a["stimulus"].astype(np.int32))), "int32"),
    "ceiling shape": (tensors(lambda a: a.update(noise_ceiling=np.zeros(3, np.float32))), "noise_ceiling .*3,"),
    "ceiling percent": (tensors(lambda a: a.update(noise_ceiling=a["noise_ceiling"] + 40)), "not percent"),
    "ceiling nan": (
        tensors(lambda a: a["noise_ceiling"].__setitem__([1, 3], np.nan)),
        r"NaN in 2 voxels .1, 3.: give 0",
    ),
    "ceiling all nan": (tensors(lambda a: a.update(noise_ceiling=a["noise_ceiling"] * np.nan)), "NaN in 7 voxels"),
    "ceiling below": (
        tensors(lambda a: a["noise_ceiling"].__setitem__(6, -0.1)),
        "-0.1 in voxel 6.*bring it to 0 to 1",
    ),
    "index too large": (tensors(lambda a: a["stimulus"].__setitem__(2, 4)), "trial 2 .* stimulus 4, but there are 4"),
    "index negative": (tensors(lambda a: a["stimulus"].__setitem__(0, -1)), "trial 0 .* stimulus -1"),
    "nan trial": (tensors(nan(3, 2)), "1 of 6 trials .* trial 3"),
    "infinite trial": (tensors(lambda a: a["responses"].__setitem__((5, 0), np.inf)), "trial 5"),
    "all-nan voxel": (tensors(nan(slice(None), 5)), "1 of 7 voxels .* voxel 5"),
    "all nan": (tensors(nan(slice(None), slice(None))), "every trial .*6 trials.: check how the responses were expor"),
    "all-nan test": (
        tensors(nan(slice(None), slice(None)), "test"),
        "every trial .*3 trials.: check how the responses were exported",
    ),
    "all test trials bad": (tensors(nan([0, 1, 2], [0, 1, 2]), "test"), "3 of 3 trials"),
    "all constant": (
        tensors(lambda a: a.update(responses=np.tile(np.arange(7, dtype=np.float32), (6, 1)))),
        "every voxel .* constant",
    ),
    "flat trials": (
        tensors(lambda a: a["responses"].__setitem__([1, 4], 0)),
        r"2 trials \(1, 4\) .* one value in all voxels \(0\)",
    ),
    "one trial": (
        lambda f: (
            data_json(lambda d: d["splits"]["train"].update(n_trials=1))(f),
            edit_tensors(f, lambda a: a.update(responses=a["responses"][:1], stimulus=a["stimulus"][:1])),
        ),
        "has a single trial",
    ),
    "no trial": (data_json(lambda d: d["splits"]["test"].update(n_trials=0)), "splits.test.n_trials"),
    "counted from 1": (tensors(lambda a: a.update(stimulus=np.array([1, 2, 3, 4, 1, 2]))), "subtract 1 from all"),
    "provenance nan": (put_nan, "provenance.scanner is nan, which JSON cannot hold"),
    "half a character": (data_json(lambda d: d.update(subject="\ud800")), "subject"),
    "hdf5": (
        put("train.safetensors", b"\x89HDF\r\n\x1a\n" + bytes(99)),
        "is an HDF5 file, expected a safetensors file",
    ),
    "tensors folder": (
        lambda f: ((f / "test.safetensors").unlink(), (f / "test.safetensors").mkdir()),
        "that it is a file",
    ),
    "captions short": (captions(lambda c: c["train"].pop()), "captions for 3 train stimuli, .* 4 pictures"),
    "captions missing": (captions(drop("test")), "captions of test"),
    "captions empty": (captions(lambda c: c.update(train=[])), "captions for 0 train"),
    "captions flat": (
        captions(lambda c: c.update(train=["a", "b", "c", "d"])),
        "train .* a flat list .* \\[\\['a'\\], …\\]",
    ),
    "captions blank": (captions(lambda c: c["train"].__setitem__(2, [" "])), "captions of train picture 2"),
    "captions none": (captions(lambda c: c["train"].__setitem__(1, [])), "captions of train picture 1"),
    "captions some of test": (captions(lambda c: c.update(test=[["a"]])), "captions for 1 test"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name: str, folder: Path) -> None:
    damage, message = REFUSED[name]
    damage(folder)
    with pytest.raises(FileError, match=message) as caught:
        open_data(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(folder)) * 2


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist: make one with md-train simulate"):
        open_data(tmp_path / "nowhere")


def test_damage_inside_a_picture_is_found_when_decoded(folder: Path) -> None:
    path = folder / "stimuli/test/000001.png"
    whole = bytearray(path.read_bytes())
    whole[60] ^= 0xFF
    path.write_bytes(bytes(whole))
    with pytest.raises(FileError, match="000001.png cannot be decoded"):
        open_data(folder).images("test")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
spots = st.sampled_from(
    ["format", "version", "subject", "modality", "response_shape", "rois", "image_size", "provenance", "splits"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spot=spots, value=json_values, where=st.sampled_from(["data.json", "captions.json"]))
def test_any_json_opens_or_is_refused(folder: Path, spot: str, value: Any, where: str) -> None:
    original = (folder / where).read_text()
    content = json.loads(original)
    content["train" if where == "captions.json" else spot] = value
    (folder / where).write_text(json.dumps(content))
    try:
        data = open_data(folder)
        assert data.responses("train").shape == (6, N_VOXELS)
        assert len(data.captions("train")) == 4
    except FileError as error:
        assert "\n" not in str(error).replace(json.dumps(value), "")  # noqa: PT017 - acceptance is fine as well
    finally:
        (folder / where).write_text(original)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 1, exclude_max=True),
    byte=st.integers(1, 255),
    name=st.sampled_from(["data.json", "train.safetensors"]),
)
def test_a_changed_byte_never_crashes(folder: Path, place: float, byte: int, name: str) -> None:
    original = (folder / name).read_bytes()
    changed = bytearray(original)
    changed[int(place * len(changed))] ^= byte
    (folder / name).write_bytes(bytes(changed))
    try:
        open_data(folder).images("train")
    except MindDiffuserError:
        pass
    finally:
        (folder / name).write_bytes(original)


# ---- writing --------------------------------------------------------------------------------------------------------


def test_write_refuses_what_open_would(tmp_path: Path) -> None:
    good, test = split(0, 4, 6), split(1, 2, 3, captions=False)

    def changed(**fields: Any) -> dict[str, SplitData]:
        return {"train": SplitData(**{**good.__dict__, **fields}), "test": test}

    cases: list[tuple[dict[str, Any], str]] = [
        ({"splits": changed(responses=good.responses.astype(complex))}, "complex128"),
        ({"splits": changed(stimulus=good.stimulus + 3)}, "showed stimulus"),
        ({"splits": changed(captions=good.captions[:2])}, "captions for 2 of 4"),
        ({"splits": changed(captions=[])}, "captions for 0 of 4"),
        ({"splits": changed(responses=good.responses[0])}, "n_trials, n_voxels"),
        ({"splits": changed(images=list(good.images[:3]) + [good.images[0, :, :4]])}, "train picture 3"),
        ({"splits": {"train": good}}, "test split is missing"),
        ({"splits": {**changed(), "val": test}}, "'val' is unknown"),
        ({"rois": {"V1": (0, 8)}}, "'V1' spans voxels 0 to 8"),
        ({"subject": ""}, "subject"),
    ]
    for change, message in cases:
        with pytest.raises(InputError, match=message):
            write(tmp_path / "data", **change)
        assert names(tmp_path) == []


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name != ".data.lock"]


def test_write_replaces_only_a_data_folder_and_only_when_asked(folder: Path, tmp_path: Path) -> None:
    before = open_data(folder).data_hash
    with pytest.raises(FileError, match="already: .* --force"):
        write(folder, subject="sub-02")
    assert open_data(folder).data_hash == before
    write(folder, subject="sub-02", replace=True)
    assert open_data(folder).subject == "sub-02"
    assert names(tmp_path) == ["data"]
    other = tmp_path / "other"
    other.mkdir()
    write(other)  # an empty folder is fine
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for target in ("mine", "mine/thesis.tex"):
        with pytest.raises(FileError, match="choose"):
            check_target(tmp_path / target, replace=True)
    with pytest.raises(FileError, match="not a data folder"):
        write(tmp_path / "mine", replace=True)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("existing", [False, True])
def test_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool) -> None:
    if existing:
        write(tmp_path / "data", subject="old")
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "000001.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError, match="disk is full while writing .*data: free some space"):
        write(tmp_path / "data", subject="new", replace=True)
    assert names(tmp_path) == (["data"] if existing else [])
    if existing:
        assert open_data(tmp_path / "data").subject == "old"


def test_equal_data_give_equal_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a").data_hash == write(tmp_path / "b").data_hash


def test_the_documented_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "data_folder.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "data_folder.md", "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out.strip()
    assert f"It prints `{printed}`" in text


@pytest.mark.parametrize("name", ["Thumbs.db", ".DS_Store", "desktop.ini", "._000000.png"])
def test_what_a_desktop_leaves_among_the_pictures_is_passed_over(folder: Path, name: str) -> None:
    before = open_data(folder).data_hash
    for split_name in ("train", "test"):
        (folder / "stimuli" / split_name / name).write_bytes(b"x")
    assert open_data(folder).data_hash == before


@pytest.mark.parametrize("voxels", [slice(None), [1, 5]])
def test_the_only_trial_is_not_blamed_on_voxels(voxels: Any, folder: Path, tmp_path: Path) -> None:
    test = split(8, 1, 1, captions=False)
    test.responses[0, voxels] = np.nan  # type: ignore[index]
    with pytest.raises(InputError, match=r"trial in .*: check how (it was|the responses were) exported") as caught:
        write(tmp_path / "one", splits={"train": split(7, 4, 6), "test": test})
    assert "voxels out" not in str(caught.value)


def test_nan_in_few_voxels_names_them(tmp_path: Path) -> None:
    train, test = split(0, 4, 60), split(1, 2, 3, captions=False)
    train.responses[10:30, [1, 5]] = np.nan  # type: ignore[index]
    with pytest.raises(InputError, match=r"20 of 60 .* leave 2 voxels \(1, 5\) out .*, or leave 20 trials \(10, "):
        write(tmp_path / "data", splits={"train": train, "test": test})
    train.responses[:] = split(0, 4, 60).responses  # type: ignore[index]
    train.responses[12] = np.inf  # type: ignore[index]
    with pytest.raises(InputError, match=r"1 of 60 trials .* \(first: trial 12\): leave trial 12 out$"):
        write(tmp_path / "data", splits={"train": train, "test": test})


def test_responses_are_mapped_and_cannot_be_changed_by_accident(folder: Path) -> None:
    responses = open_data(folder).responses("train")
    assert isinstance(responses.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        responses[0, 0] = 1


def test_a_folder_behind_links_and_of_a_foreign_name_opens(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "Ünïcode 資料"
    place.mkdir()
    (place / "stimuli").symlink_to(folder / "stimuli")
    for name in ("data.json", "captions.json", "trial_ids.json", "train.safetensors"):
        (place / name).write_bytes((folder / name).read_bytes())
    (place / "test.safetensors").symlink_to(folder / "test.safetensors")
    (tmp_path / "link").symlink_to(place)
    assert open_data(tmp_path / "link").data_hash == open_data(folder).data_hash


def test_opening_writes_nothing(folder: Path) -> None:
    before = sorted((str(path), path.stat().st_mtime_ns) for path in folder.parent.rglob("*"))
    data = open_data(folder)
    data.images("test")
    assert data.data_hash
    assert sorted((str(path), path.stat().st_mtime_ns) for path in folder.parent.rglob("*")) == before


def test_a_folder_that_is_replaced_while_it_is_used_mixes_nothing(folder: Path) -> None:
    data = open_data(folder)
    old = data.responses("train").copy()
    data.images("train")
    write(folder, splits={"train": split(7, 4, 6), "test": split(8, 2, 3, captions=False)}, replace=True)
    np.testing.assert_array_equal(data.responses("train"), old)  # as they were mapped
    for use in (lambda: data.images("train"), lambda: data.hash("train"), lambda: data.data_hash):
        with pytest.raises(FileError, match="data was replaced or edited while it was in use: give the command again"):
            use()


@pytest.mark.parametrize("cut", [False, True])
def test_responses_that_are_rewritten_in_place_are_not_used(cut: bool, folder: Path) -> None:
    data = open_data(folder)
    path = folder / "train.safetensors"
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(before[:-8] if cut else before[:-8] + bytes(8))
    os.utime(path, ns=(stamp, stamp + 1))
    for use in (lambda: data.responses("train"), lambda: data.stimulus("train"), lambda: data.images("train")):
        with pytest.raises(FileError, match="data was replaced or edited while it was in use: give the command again"):
            use()
    assert data.responses("test").shape


def test_copies_of_a_picture_have_one_id(folder: Path) -> None:
    first, *_, last = open_data(folder).pictures("train")
    last.write_bytes(first.read_bytes())
    ids = open_data(folder).picture_ids("train")
    assert ids[0] == ids[-1]
    assert len(set(ids)) == len(ids) - 1


class Waiting(list[Any]):
    """Pictures that are made only when they may be, and say when they are asked for."""

    def __init__(self, pictures: Any) -> None:
        super().__init__(pictures)
        self.asked, self.allowed = threading.Event(), threading.Event()

    def __getitem__(self, index: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            self.asked.set()
            assert self.allowed.wait(600)
        return super().__getitem__(index)


def test_of_two_that_write_one_folder_the_second_says_so(tmp_path: Path) -> None:
    test, train = split(1, 2, 3, captions=False), split(0, 4, 6)
    pictures = Waiting(train.images)
    # The first picture is looked at before the lock is taken, all of them under it.
    slow = {"train": train, "test": SplitData(**{**test.__dict__, "images": pictures})}
    results: list[Any] = []
    first = threading.Thread(target=lambda: results.append(write(tmp_path / "data", splits=slow, subject="first")))
    first.start()
    assert pictures.asked.wait(600)
    with pytest.raises(FileError, match="another process is working in .*data: wait for it, or give another folder"):
        write(tmp_path / "data", subject="second")
    pictures.allowed.set()
    first.join()
    assert results[0].subject == "first"
    assert open_data(tmp_path / "data").subject == "first"


def test_trial_ids_are_kept_once_and_replaced_with_the_folder(tmp_path: Path) -> None:
    place, train, test = tmp_path / "data", split(0, 4, 6), split(1, 2, 3, captions=False)
    data = write(place, splits={"train": train, "test": replace(test, trial_ids=["x", "y", "z"])})
    assert data.trial_ids("test") == ("x", "y", "z")
    assert data.trial_ids("train")[0] == f"train/{train.stimulus[0]}/0"
    stored = json.loads((place / "trial_ids.json").read_text())
    assert stored == {"train": list(data.trial_ids("train")), "test": ["x", "y", "z"]}
    before = data.data_hash
    again = write(place, splits={"train": train, "test": replace(test, trial_ids=["x", "z", "y"])}, replace=True)
    assert again.data_hash != before
    (place / "trial_ids.json").unlink()
    assert len(set(open_data(place).trial_ids("test"))) == 3


@pytest.mark.parametrize("ids", [["x", "y"], ["x", "y", "x"], ["x", "", "z"], ["x", 1, "z"]])
def test_trial_ids_that_name_no_trial_are_refused(tmp_path: Path, ids: list[Any]) -> None:
    test = replace(split(1, 2, 3, captions=False), trial_ids=ids)
    with pytest.raises(InputError, match="the test split to write"):
        write(tmp_path / "data", splits={"train": split(0, 4, 6), "test": test})
    assert not (tmp_path / "data").exists()
    folder = tmp_path / "good"
    write(folder)
    edit_json(folder / "trial_ids.json", lambda content: content.update(test=ids))
    with pytest.raises(FileError, match=r"trial_ids\.json"):
        open_data(folder)


# ---- other versions and other signals -------------------------------------------------------------------------------


def test_version_1_is_read_as_version_2(folder: Path) -> None:
    new = open_data(folder)
    content = json.loads((folder / "data.json").read_text())
    del content["response_shape"]
    (folder / "data.json").write_text(json.dumps({**content, "version": 1, "n_voxels": N_VOXELS}))
    old = open_data(folder)
    assert old.layout == new.layout
    np.testing.assert_array_equal(old.responses("test"), new.responses("test"))
    check_target(folder, replace=True)


def test_regions_may_overlap_and_leave_voxels_out(tmp_path: Path) -> None:
    rois = {"V1": (0, 3), "LVC": {0, 2, 5}}
    assert write(tmp_path / "data", rois=rois).layout.rois == {"V1": (0, 3), "LVC": frozenset({0, 2, 5})}


EEG = ResponseLayout(
    modality="eeg",
    shape=(3, 5),
    channels=tuple(Channel(name=name, type="eeg") for name in ("O1", "Oz", "O2")),
    sfreq=250.0,
    tmin=-0.1,
    unit="V",
    signal={"steps": [{"name": "whiten", "file": "w.bin", "sha256": hashlib.sha256(b"w").hexdigest()}]},
)


def named_in_chain(name: str) -> ResponseLayout:
    return replace(EEG, signal={"steps": [{**EEG.signal["steps"][0], "file": name}]})  # type: ignore[index]


def epochs(**changes: Any) -> dict[str, SplitData]:
    rng = np.random.default_rng(0)
    trials = {"train": rng.standard_normal((6, 3, 5)), "test": rng.standard_normal((3, 3, 5)), **changes}
    return {
        name: replace(part, responses=trials[name], noise_ceiling=np.full((3, 5), 0.5))
        for name, part in (("train", split(0, 4, 6)), ("test", split(1, 2, 3, captions=False)))
    }


def write_epochs(folder: Path, **changes: Any) -> Any:
    (folder.parent / "w").write_bytes(b"w")
    given = {"rois": None, "layout": EEG, "files": {"w.bin": folder.parent / "w"}, **changes}
    return write(folder, splits=given.pop("splits", epochs()), **given)


def test_epochs_of_channels_and_times(tmp_path: Path) -> None:
    data = write_epochs(tmp_path / "data")
    assert data.layout == EEG
    assert isinstance(data.responses("train").base, np.memmap)
    np.testing.assert_array_equal(data.responses("train"), epochs()["train"].responses.astype(np.float32))
    assert data.noise_ceiling("test").shape == (3, 5)
    assert len(data.constant_places) == 0
    write_epochs(tmp_path / "data", replace=True)  # the chain's file belongs to the folder
    (tmp_path / "data/w.bin").write_bytes(b"x")
    with pytest.raises(FileError, match=r"w.bin has another SHA-256 than the signal chain in data.json states"):
        open_data(tmp_path / "data")


def test_holes_and_dead_channels_are_named_as_channels(tmp_path: Path) -> None:
    train = epochs()["train"].responses.copy()  # type: ignore[union-attr]
    train[:, 1] = np.arange(5)
    assert write_epochs(tmp_path / "dead", splits=epochs(train=train)).constant_places.tolist() == [1]
    train[:, 1, 2] = np.nan
    with pytest.raises(
        InputError, match="1 of 3 channels in .* in every trial .first: channel 1.: leave these channels"
    ):
        write_epochs(tmp_path / "data", splits=epochs(train=train))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"layout": None},
            r"train are \(6, 3, 5\): expected \(n_trials, n_voxels\); of EEG and MEG, give their layout",
        ),
        ({"rois": {"V1": (0, 1)}}, "rois and a layout were both given"),
        ({"layout": replace(EEG, shape=(3, 6))}, r"\(6, 3, 5\), expected float32 \(6, 3, 6\)"),
        ({"layout": EEG.as_json()}, r"the layout is a dict: give a runtime.data.layout.ResponseLayout"),
        ({"files": {"w.bin": b"w"}}, "`files` gives b'w' for w.bin: give the file's path"),
        ({"files": {"w.bin": Path(__file__), "v.bin": Path(__file__)}}, "`files` has 'v.bin', which no step"),
        ({"layout": named_in_chain("captions.json")}, "names captions.json, a name that the data folder's own files"),
        ({"layout": named_in_chain("Data.json")}, "names Data.json, a name that the data folder's own files"),
        ({"layout": named_in_chain("stimuli")}, "names stimuli, a name that the data folder's own files"),
        ({"files": {}}, "the signal chain names w.bin: give its path"),
        ({"files": {"w.bin": Path(__file__)}}, "has another SHA-256 than the signal chain states for w.bin"),
    ],
)
def test_epochs_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_epochs(tmp_path / "data", **changes)
    assert not (tmp_path / "data").exists()


def test_the_chains_files_may_be_texts(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"w")
    data = write_epochs(tmp_path / "data", files={"w.bin": str(tmp_path / "w")})
    assert (data.folder / "w.bin").read_bytes() == b"w"


def test_a_chain_that_names_the_folders_own_files_does_not_open(tmp_path: Path) -> None:
    write_epochs(tmp_path / "data")
    digest = hashlib.sha256((tmp_path / "data/captions.json").read_bytes()).hexdigest()
    chain = {"steps": [{"name": "whiten", "file": "captions.json", "sha256": digest}]}
    edit_json(tmp_path / "data/data.json", lambda content: content.update(signal=chain))
    with pytest.raises(FileError, match="names captions.json, a name that the data folder's own files have"):
        open_data(tmp_path / "data")


def refer_all(root: Path, names: dict[str, list[str]]) -> dict[str, SplitData]:
    splits = {"train": split(0, 4, 6), "test": split(1, 2, 3, captions=False)}
    return {name: replace(part, images=[refer(root, path) for path in names[name]]) for name, part in splits.items()}


@pytest.mark.parametrize("how", ["stimuli", "parent", "link", "one split"])
def test_pictures_in_the_folder_itself_are_not_taken_for_pictures_elsewhere(
    folder: Path, tmp_path: Path, how: str
) -> None:
    """They would be deleted with the old folder, and the new one would name what is no longer there."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    root, front = folder / "stimuli", ""
    if how == "parent":
        root, front = tmp_path, "data/stimuli/"
    if how == "link":
        (tmp_path / "link").symlink_to(folder / "stimuli")
        root = tmp_path / "link"
    names = {name: [f"{front}{name}/{n:06d}.png" for n in range(count)] for name, count in (("train", 4), ("test", 2))}
    splits = refer_all(root, names)
    if how == "one split":
        splits["train"] = replace(splits["train"], images=split(0, 4, 6).images)
    for writer in (lambda: write(folder, splits=splits, image_size=SIZE, replace=True), lambda: claim(folder, splits)):
        with pytest.raises(InputError, match="lies in the data folder .* itself, which is written anew: copy the pict"):
            writer()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def claim(folder: Path, splits: dict[str, SplitData]) -> None:
    with claimed(folder, replace=True):
        write_claimed(folder, splits, subject="sub-01", rois=ROIS, image_size=SIZE)


def test_what_could_not_be_opened_takes_no_folders_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever went wrong while it was written: the old folder stays."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(folder_module, "write_json", lambda path, _: path.write_text("{}"))
    with pytest.raises(FileError):
        write(folder, replace=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
