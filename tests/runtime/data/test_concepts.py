"""Concepts: one name per picture, kept, counted in the hash, and refused in one sentence where they are not that."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.runtime.data.concepts import read_concepts
from minddiffuser.runtime.data.folder import SplitData, open_data, write_data
from minddiffuser.runtime.errors import FileError, InputError

RNG = np.random.default_rng(11)
ROWS = RNG.standard_normal((4, 5)).astype(np.float32)
PICTURES = RNG.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def split(**changes: Any) -> SplitData:
    captions = [["a cat"], ["a dog"], ["a fish"]]
    return SplitData(
        **{"responses": ROWS, "stimulus": [0, 1, 2, 1], "images": PICTURES, "captions": captions} | changes
    )


def write(folder: Path, train: Any = None, test: Any = None) -> Any:
    return write_data(folder, {"train": split(concepts=train), "test": split(concepts=test)}, subject="s")


def test_they_come_back_as_they_were_given(tmp_path: Path) -> None:
    train, test = ["aardvark", "aircraft carrier", "aardvark"], np.array(["Öl", "t-shirt (white)", "bat1"])
    data = write(tmp_path / "data", train, test)
    assert data.concepts("train") == tuple(train)
    assert data.concepts("test") == tuple(map(str, test))
    assert json.loads((tmp_path / "data/concepts.json").read_text()) == {"train": train, "test": list(test)}
    # On a machine that only reconstructs, the names of the other split are there too.
    assert open_data(tmp_path / "data", splits=("test",)).concepts("train") == tuple(train)
    with pytest.raises(InputError, match="validation"):
        data.concepts("validation")


def test_without_them_nothing_is_written(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    assert data.concepts("train") == data.concepts("test") == ()
    assert not (tmp_path / "data/concepts.json").exists()


def test_one_split_may_have_none(tmp_path: Path) -> None:
    data = write(tmp_path / "data", ["a", "b", "c"])
    assert (data.concepts("train"), data.concepts("test")) == (("a", "b", "c"), ())


def test_the_hash_counts_them_where_there_are_any(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain").hash("train")
    digest = hashlib.sha256()
    for k in range(3):
        png = (tmp_path / f"plain/stimuli/train/{k:06d}.png").read_bytes()
        digest.update(hashlib.sha256(png).hexdigest().encode())
    digest.update(json.dumps([["a cat"], ["a dog"], ["a fish"]]).encode())
    assert plain == digest.hexdigest()  # as before there were concepts
    digest.update(b'{"concepts": ["a", "b", "c"]}')
    named = write(tmp_path / "named", ["a", "b", "c"])
    assert named.hash("train") == digest.hexdigest()
    assert named.hash("test") == open_data(tmp_path / "plain").hash("test")
    assert write(tmp_path / "swapped", ["b", "a", "c"]).hash("train") not in (plain, named.hash("train"))
    assert named.data_hash != open_data(tmp_path / "plain").data_hash


@pytest.mark.parametrize(
    ("concepts", "reason"),
    [
        ("cat", "concepts of train are 'cat'"),
        (7, "concepts of train are 7"),
        (["a", "b"], "has concepts for 2 train stimuli, and there are 3"),
        (["a", "b", ""], "train picture 2 .* is ''"),
        (["a", " b", "c"], "train picture 1 .* is ' b'"),
        (["a\nb", "b", "c"], "train picture 0 .*printable"),
        ([1, "b", "c"], "train picture 0 .* is 1"),
        ([["a"], "b", "c"], "train picture 0"),
        (["a", "b", 101 * "c"], "train picture 2 .*1 to 100"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, concepts: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        write(tmp_path / "data", concepts)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "damaged"),
        ("[]", "JSON object"),
        ('{"train": ["a", "b", "c"]}', "concepts of test .* None"),
        ('{"train": ["a", "b"], "test": []}', "for 2 train stimuli"),
        ('{"train": ["a", "b", null], "test": []}', "train picture 2"),
        ('{"train": ["a", "b", "\\ud800"], "test": []}', "train picture 2"),
        ('{"train": {"a": 1}, "test": []}', "concepts of train"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, content: str, reason: str) -> None:
    write(tmp_path / "data", ["a", "b", "c"])
    (tmp_path / "data/concepts.json").write_text(content)
    with pytest.raises(FileError, match=reason):
        open_data(tmp_path / "data")


def test_a_folder_with_concepts_may_be_replaced(tmp_path: Path) -> None:
    write(tmp_path / "data", ["a", "b", "c"])
    splits = {"train": split(), "test": split()}
    assert write_data(tmp_path / "data", splits, subject="s", replace=True).concepts("train") == ()
    assert not (tmp_path / "data/concepts.json").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("c.txt", "aardvark\n\n  Öl \n"), ("c.txt", "\ufeffaardvark\r\nÖl"), ("c.JSON", '["aardvark", "\\u00d6l"]')],
)
def test_a_list_of_candidates_is_lines_or_json(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_concepts(tmp_path / name) == ("aardvark", "Öl")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("c.txt", b"", "at least one name"),
        ("c.txt", b"a\nb\na\n", "'a' .* stands at 0 and 2"),
        ("c.txt", b"Light_blue\nb\nlight blue\n", r"'light blue' .* stands at 0 \(as 'Light_blue'\) and 2: give each"),
        ("c.txt", b"a\n\xff\n", "not UTF-8"),
        ("c.txt", 101 * b"a", "concept 0 .*1 to 100"),
        ("c.json", b'["a", 3]', "concept 1 .* is 3"),
        ("c.json", b'{"a": 3}', "at least one name"),
        ("c.json", b"[", "not JSON"),
    ],
)
def test_other_lists_are_one_sentence(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=reason):
        read_concepts(tmp_path / name)


def test_a_missing_list_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        read_concepts(tmp_path / "absent")
