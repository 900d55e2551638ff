"""What a person gives to write_data: converted where it means one thing only, else refused with a cure that works."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.data.folder import SplitData, open_data, write_data
from minddiffuser.runtime.errors import InputError
from minddiffuser.runtime.images import fit_square

N_VOXELS, SIZE = 6, 10
RNG = np.random.default_rng(2)
ROWS = RNG.standard_normal((5, N_VOXELS)).astype(np.float32)
PICTURES = RNG.integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
CAPTIONS = [["a cat"], ["a dog", "a hound"], ["a fish"]]


def split(**changes: Any) -> SplitData:
    given = {"responses": ROWS, "stimulus": [0, 1, 2, 1, 0], "images": PICTURES, "captions": CAPTIONS, **changes}
    return SplitData(**given)


def write(folder: Path, train: SplitData | None = None, test: SplitData | None = None, **changes: Any) -> Any:
    splits = {"train": train or split(), "test": test or split(captions=())}
    given: dict[str, Any] = {"subject": "s", "rois": {"V1": (0, N_VOXELS)}, **changes}
    return write_data(folder, splits, **given)


SCALED = np.round(ROWS * 300)


@pytest.mark.parametrize(
    "responses",
    [
        SCALED.astype(np.int16),
        SCALED.astype(np.int64),
        SCALED.astype(np.float64),
        SCALED.astype(">f4"),
        np.asfortranarray(SCALED),
        SCALED.tolist(),
        SCALED.astype(np.float16),
    ],
    ids=["int16", "int64", "float64", "big-endian", "fortran", "list", "float16"],
)
def test_numbers_of_any_type_are_the_same_numbers(tmp_path: Path, responses: Any) -> None:
    data = write(tmp_path / "data", split(responses=responses), split(responses=responses, captions=()))
    for name in ("train", "test"):
        assert data.responses(name).dtype == np.float32
        np.testing.assert_array_equal(data.responses(name), np.asarray(responses, np.float64))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.uint64, np.int64])
def test_indices_of_any_whole_type(tmp_path: Path, dtype: type) -> None:
    data = write(tmp_path / "data", split(stimulus=np.array([0, 1, 2, 1, 0], dtype)))
    assert data.stimulus("train").tolist() == [0, 1, 2, 1, 0]
    assert data.stimulus("train").dtype == np.int64


def test_what_a_mask_hides_is_no_number(tmp_path: Path) -> None:
    masked = np.ma.masked_array(ROWS, mask=np.zeros(ROWS.shape, bool))
    masked[3, 2] = np.ma.masked
    with pytest.raises(InputError, match=r"1 of 5 trials .*first: trial 3"):
        write(tmp_path / "data", split(responses=masked))
    data = write(tmp_path / "data", test=split(responses=masked, captions=()))
    assert np.argwhere(np.isnan(data.responses("test"))).tolist() == [[3, 2]]


@pytest.mark.parametrize("captions", [["cat", "dog", "fish"], [("cat",), "dog", np.array(["fish"])]])
def test_a_single_text_is_one_caption_and_not_its_letters(tmp_path: Path, captions: Any) -> None:
    data = write(tmp_path / "data", split(captions=captions), split(captions=None))
    assert data.captions("train") == [["cat"], ["dog"], ["fish"]]
    assert data.captions("test") == []


def test_a_test_split_of_one_trial(tmp_path: Path) -> None:
    one = split(responses=ROWS[:1], stimulus=[0], images=PICTURES[:1], captions=())
    assert write(tmp_path / "data", test=one).responses("test").shape == (1, N_VOXELS)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "one trial": ({"responses": ROWS[:1], "stimulus": [0]}, "train split .* has a single trial"),
    "no trial": ({"responses": ROWS[:0], "stimulus": []}, r"\(0, 6\): a split has at least one trial"),
    "no voxel": ({"responses": ROWS[:, :0]}, "at least one trial and one value"),
    "flat": ({"responses": ROWS[0]}, r"\(6,\): expected \(n_trials, n_voxels\)"),
    "the same rows": ({"responses": np.tile(ROWS[:1], (5, 1))}, "every voxel .* all 5 trials are the same"),
    "zeros": (
        {"responses": ROWS * np.array([[1], [0], [1], [1], [0]])},
        r"2 trials \(1, 4\).* one value in all",
    ),
    "ragged": ({"responses": [[1.0, 2.0], [3.0]]}, "cannot be made an array"),
    "texts": ({"responses": ROWS.astype(str)}, "give real numbers"),
    "complex": ({"responses": ROWS + 1j}, "complex"),
    "beyond float32": ({"responses": ROWS.astype(np.float64) * 1e300}, "30 values beyond float32"),
    "whole numbers in one split": (
        {"responses": SCALED.astype(np.int16)},
        "train .* int16 .* test .* float32",
    ),
    "index floats": ({"stimulus": [0.0, 1.0, 2.0, 1.0, 0.0]}, "stimulus of train is float64: give whole numbers"),
    "index from 1": ({"stimulus": [1, 2, 3, 2, 1]}, "count from 1, subtract 1"),
    "index short": ({"stimulus": [0, 1]}, r"stimulus .* int64 \(2,\), expected int64 \(5,\)"),
    "index huge": ({"stimulus": np.array([0, 1, 2, 1, 2**63], np.uint64)}, "counts up to 9223372036854775808"),
    "ceiling percent": ({"noise_ceiling": [20, 30, 0, 55, 60, 1]}, "not percent, so divide it by 100"),
    "ceiling nan": ({"noise_ceiling": [0.2, np.nan, 0, 0.5, np.nan, 0.1]}, r"NaN in 2 voxels \(1, 4\)"),
    "no pictures": ({"images": []}, "no picture"),
    "pictures of a generator": ({"images": (p for p in PICTURES)}, "generator: give an array or a list"),
    "captions text": ({"captions": "a cat"}, "'a cat': give one list of captions per picture"),
    "captions number": ({"captions": [["a"], 3, ["b"]]}, "picture 1 are 3: give a list of texts"),
    "captions numbers": ({"captions": [["a"], [3], ["b"]]}, r"picture 1 .* are \[3\]"),
    "captions of some": ({"captions": ["a", "b"]}, "captions for 2 of 3 pictures"),
    "captions half a character": ({"captions": ["a", "b", "\ud800"]}, "picture 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, name: str) -> None:
    changes, told = WRONG[name]
    with pytest.raises(InputError, match=told) as caught:
        write(tmp_path / "data", split(**changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("rois", "told"),
    [
        ({"V1": (0, 3.5)}, r"roi 'V1' is \(0, 3.5\): give .start, stop. in voxels, or a set of voxels"),
        ({"V1": 6}, "roi 'V1' is 6"),
        ({1: (0, 6)}, "named 1: give a text"),
        ([("V1", (0, 6))], "rois are a list"),
        ({"V1": (0, 2), "V2": (3, 9)}, "'V2' spans voxels 3 to 9, and there are 6"),
        ({}, "rois"),
    ],
)
def test_wrong_rois(tmp_path: Path, rois: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        write(tmp_path / "data", rois=rois)


def test_rois_of_numpy(tmp_path: Path) -> None:
    edges = np.array([0, 2, N_VOXELS])
    rois = {"V1": tuple(edges[:2]), "V2": list(edges[1:])}
    assert write(tmp_path / "data", rois=rois).layout.rois == {"V1": (0, 2), "V2": (2, N_VOXELS)}


def test_two_numbers_of_an_array_are_two_voxels(tmp_path: Path) -> None:
    """Only a pair that is written as one is a range: an index set of two must not grow with what lies between."""
    rois = {"A": np.array([1, 4]), "B": np.array([2, 3]), "C": range(1, 5, 3), "D": range(1, 4), "E": np.array([5])}
    expected = {"A": frozenset({1, 4}), "B": (2, 4), "C": frozenset({1, 4}), "D": (1, 4), "E": (5, 6)}
    assert write(tmp_path / "data", rois=rois).layout.rois == expected


LAYOUTS: dict[str, tuple[Any, str]] = {
    "channels first": (PICTURES.transpose(0, 3, 1, 2), r"channels come first: picture.transpose\(1, 2, 0\)"),
    "grey": (PICTURES[..., 0], "grey picture, make three equal channels"),
    "grey with its channel": (PICTURES[..., :1], "grey picture, make three equal channels"),
    "grey channel first": (PICTURES[:, None, :, :, 0], r"grey with its channel first"),
    "transparency": (np.concatenate([PICTURES, PICTURES[..., :1]], -1), "drop the fourth channel"),
    "0 to 1": (PICTURES / 255, r"0 to 1 .*\(picture \* 255\).round\(\).astype"),
    "0 to 255": (PICTURES.astype(np.float32), r"picture.round\(\).astype"),
    "-1 to 1": (PICTURES / 127.5 - 1, r"-1 to 1 .*\(\(picture \+ 1\) \* 127.5\).round"),
    "not square": (np.repeat(PICTURES, 2, axis=1), rf"fit_square\(picture, {SIZE}\)"),
    "paths": (["a.png", "b.png", "c.png"], "read_image reads"),
}
CURES: dict[str, Any] = {
    "channels first": lambda picture: picture.transpose(1, 2, 0),
    "grey": lambda picture: np.stack([picture.squeeze()] * 3, axis=-1),
    "grey with its channel": lambda picture: np.stack([picture.squeeze()] * 3, axis=-1),
    "grey channel first": lambda picture: np.stack([picture[0]] * 3, axis=-1),
    "transparency": lambda picture: picture[..., :3],
    "0 to 1": lambda picture: (picture * 255).round().astype(np.uint8),
    "0 to 255": lambda picture: picture.round().astype(np.uint8),
    "-1 to 1": lambda picture: ((picture + 1) * 127.5).round().astype(np.uint8),
    "not square": lambda picture: fit_square(picture, SIZE),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("place", ["train", "test"])
def test_pictures_of_another_layout_are_told_the_cure_that_works(tmp_path: Path, name: str, place: str) -> None:
    images, told = LAYOUTS[name]
    with pytest.raises(InputError, match=told) as caught:
        write(tmp_path / "data", **{place: split(images=images)})
    assert ("fit_square" in str(caught.value)) == (name == "not square")
    assert f"{place} picture 0 is" in str(caught.value)
    if name in CURES:
        data = write(tmp_path / "data", **{place: split(images=[CURES[name](image) for image in images])})
        assert data.image_size == SIZE


def test_provenance_in_numpys_types(tmp_path: Path) -> None:
    given = {
        "tr": np.float32(1.5),
        "n": np.int64(3),
        "good": np.bool_(True),
        "b": np.arange(3),
        "from": tmp_path / "raw",
        "day": datetime.date(2026, 1, 31),
        "runs": ({"name": np.str_("ü")}, None),
        7: "T",
    }
    data = write(tmp_path / "data", provenance=given)
    assert data.provenance == {
        "tr": 1.5,
        "n": 3,
        "good": True,
        "b": [0, 1, 2],
        "from": str(tmp_path / "raw"),
        "day": "2026-01-31",
        "runs": [{"name": "ü"}, None],
        "7": "T",
    }
    assert (
        json.loads((tmp_path / "data" / "data.json").read_bytes())["provenance"]
        == open_data(tmp_path / "data").provenance
    )


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    ("provenance", "told"),
    [
        ({"scanner": {"tr": np.float32("nan")}}, "provenance.scanner.tr is nan"),
        ({"a": [1, float("inf")]}, r"provenance.a\[1\] is inf"),
        ({"a": object()}, "provenance.a is a object"),
        ({"a": b"x"}, "provenance.a is a bytes"),
        ({"a": np.array([object()])}, "provenance.a is a ndarray"),
        ({"a": 1 + 2j}, "provenance.a is a complex"),
        ({"a": {1, 2}}, "provenance.a is a set"),
        ({(1, 2): "x"}, r"the key \(1, 2\)"),
        ({1: "x", "1": "y"}, "same as text"),
        ({"a": "\ud800"}, "provenance.a is .* not Unicode"),
        ({"a": 1 << 5000}, "provenance.a is a whole number of 5001 bits"),
        (nested(200), "deeper than 50 levels"),
        ([1], "provenance"),
    ],
)
def test_provenance_that_json_cannot_hold_is_named(tmp_path: Path, provenance: Any, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        write(tmp_path / "data", provenance=provenance)
    assert len(str(caught.value)) < 300
    assert not (tmp_path / "data").exists()
