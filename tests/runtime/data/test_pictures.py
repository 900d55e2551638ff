"""Data folders whose pictures lie elsewhere: written, opened, moved, and read as squares of one size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.data.folder import SplitData, open_data, write_data
from minddiffuser.runtime.data.references import refer
from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.images import fit_square, write_png
from minddiffuser.runtime.run.responses import open_responses, read_stimuli

SIZE = 8
LARGE = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)


def split(images: Any, seed: int) -> SplitData:
    rng = np.random.default_rng(seed)
    return SplitData(
        responses=rng.standard_normal((6, 4)).astype(np.float32),
        stimulus=np.arange(6) % len(images),
        images=images,
        captions=[["a"]] * len(images),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    np.save(tmp_path / "root/brick.npy", LARGE[:3])
    for k in (3, 4):
        write_png(tmp_path / f"root/{k}.png", LARGE[k])
    return tmp_path / "root"


def write(folder: Path, root: Path, **changes: Any) -> Any:
    train = [refer(root, "brick.npy", index=index) for index in range(3)]
    test = [refer(root, f"{k}.png") for k in (3, 4)]
    splits = {"train": split(train, 1), "test": split(test, 2)}
    return write_data(folder, splits, **{"subject": "s", "rois": {"V1": (0, 4)}, "image_size": SIZE, **changes})


def edited(folder: Path, change: Callable[[Any], Any]) -> None:
    path = folder / "stimuli.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_pictures_stay_where_they_lie(tmp_path: Path, root: Path) -> None:
    data = write(tmp_path / "data", root)
    assert not (tmp_path / "data/stimuli").exists()
    np.testing.assert_array_equal(data.images("train"), [fit_square(image, SIZE) for image in LARGE[:3]])
    np.testing.assert_array_equal(data.images("test", 1), [fit_square(LARGE[4], SIZE)])
    assert (data.n_stimuli("train"), data.n_stimuli("test"), data.image_size) == (3, 2, SIZE)
    assert len(set(data.picture_ids("train"))) == 3
    given = open_responses(tmp_path / "data")
    assert given.pictures is not None
    assert given.stimulus_ids is not None
    assert given.stimulus_ids[0] == given.stimulus_ids[2] != given.stimulus_ids[1]
    np.testing.assert_array_equal(read_stimuli(given.pictures[:2], 6), [fit_square(LARGE[k], 6) for k in (3, 4)])


def test_the_root_may_be_another_one(tmp_path: Path, root: Path) -> None:
    before = write(tmp_path / "data", root)
    hashes = before.hash("train"), before.data_hash
    shutil.move(root, tmp_path / "moved")
    with pytest.raises(FileError, match="root .*root is not a folder: say where they lie with --stimuli-root"):
        open_data(tmp_path / "data")
    data = open_data(tmp_path / "data", stimuli_root=tmp_path / "moved")
    np.testing.assert_array_equal(data.images("train"), [fit_square(image, SIZE) for image in LARGE[:3]])
    assert (data.hash("train"), data.data_hash) == hashes
    edited(tmp_path / "data", lambda content: content.update(root="../moved"))
    assert open_data(tmp_path / "data").images("test").shape == (2, SIZE, SIZE, 3)


def test_the_hash_follows_pixels_and_size(tmp_path: Path, root: Path) -> None:
    first = write(tmp_path / "data", root).hash("test")
    assert write(tmp_path / "larger", root, image_size=SIZE + 1).hash("test") != first
    write_png(root / "4.png", LARGE[0])
    assert write(tmp_path / "other", root).hash("test") != first


def test_one_split_may_lie_in_the_folder(tmp_path: Path, root: Path) -> None:
    inside = np.stack([fit_square(image, SIZE) for image in LARGE[:3]])
    splits = {"train": split(inside, 1), "test": split([refer(root, "3.png")], 2)}
    data = write_data(tmp_path / "data", splits, subject="s", rois={"V1": (0, 4)})
    assert data.image_size == SIZE
    np.testing.assert_array_equal(data.images("train"), inside)
    np.testing.assert_array_equal(data.images("test"), [fit_square(LARGE[3], SIZE)])


def test_a_folder_with_names_is_replaced_as_any_other(tmp_path: Path, root: Path) -> None:
    write(tmp_path / "data", root)
    assert write(tmp_path / "data", root, subject="t", replace=True).subject == "t"


def test_writing_refuses(tmp_path: Path, root: Path) -> None:
    with pytest.raises(InputError, match="give image_size"):
        write(tmp_path / "data", root, image_size=None)
    shutil.copytree(root, tmp_path / "second")
    two = [refer(root, "3.png"), refer(tmp_path / "second", "4.png")]
    for images, message in (
        (two, "name all of them below one root"),
        ([two[0], LARGE[0]], "some pictures of train are pixels and some lie elsewhere"),
    ):
        splits = {"train": split(images, 1), "test": split([two[0]], 2)}
        with pytest.raises(InputError, match=message):
            write_data(tmp_path / "data", splits, subject="s", rois={"V1": (0, 4)}, image_size=SIZE)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(crop="none"), "crop in .* is 'none': give 'centre', the only one there is"),
        (lambda c: c.pop("resize"), "resize in .* is None"),
        (lambda c: c.update(root=7), "root in .* is 7"),
        (lambda c: c.update(train=[]), "train in .* is .*: give a list with one picture or more"),
        (lambda c: c["train"][1].update(path="../brick.npy"), "train picture 1 in .*is not below the root"),
        (lambda c: c["test"][0].update(path="9.png"), "9.png does not exist"),
        (lambda c: c["test"].append(c["test"][0]), "captions for 2 test stimuli, and there are 3 pictures"),
        (lambda c: c.pop("test"), "the test stimuli are missing"),
    ],
)
def test_opening_refuses(tmp_path: Path, root: Path, change: Callable[[Any], Any], message: str) -> None:
    write(tmp_path / "data", root)
    edited(tmp_path / "data", change)
    with pytest.raises(FileError, match=message) as caught:
        open_data(tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_a_list_that_is_edited_while_it_is_used_is_noticed(tmp_path: Path, root: Path) -> None:
    data = write(tmp_path / "data", root)
    edited(tmp_path / "data", lambda content: content.update(root="elsewhere, far away"))
    with pytest.raises(FileError, match="was replaced or edited while it was in use"):
        data.images("train")
