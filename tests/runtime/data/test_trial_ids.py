"""Ids of trials: how they are made, read and refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.data.trial_ids import (
    check_trial_ids,
    default_trial_ids,
    folder_trial_ids,
    hash_of_ids,
    ids_worth_showing,
    read_trial_ids,
    row_ids,
)
from minddiffuser.runtime.errors import FileError


def test_default_ids_count_the_showings_of_each_picture() -> None:
    stimulus = np.array([3, 0, 3, 3, 0])
    assert default_trial_ids("test", stimulus) == ("test/3/0", "test/0/0", "test/3/1", "test/3/2", "test/0/1")
    averaged = default_trial_ids("test", np.array([2, 0, 2]), averages=True)
    assert averaged == ("test/2/mean", "test/0/mean", "test/2/mean-1")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.txt", b"a\nb c\n\xc3\xbc\n"),
        ("ids.txt", b"a\r\nb c\r\n\xc3\xbc"),
        ("ids.csv", b"\xef\xbb\xbfa\nb c\n\xc3\xbc\n\n"),
        ("ids.json", b'["a", "b c", "\\u00fc"]'),
        ("ids.JSON", b'["a", "b c", "\\u00fc"]\n'),
    ],
)
def test_a_list_of_ids_is_lines_or_json(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_trial_ids(tmp_path / name, 3) == ("a", "b c", "ü")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("i.txt", b"a\nb\n", "has 2 trial ids and there are 3 trials"),
        ("i.txt", b"", "has 0 trial ids"),
        ("i.txt", b"a\nb\na\n", "'a' .* occurs at trials 0 and 2"),
        ("i.txt", b"a\n\nb\n", "trial 1 in .* is ''"),
        ("i.txt", b"a\n b\nc", "trial 1 in .* is ' b'"),
        ("i.txt", b"a\n\x1b[2J\nc", "printable"),
        ("i.txt", b"a\n" + 201 * b"b" + b"\nc", "1 to 200"),
        ("i.txt", b"a\n\xff\nc", "not UTF-8"),
        ("i.json", b"[1, 2, 3]", "trial 0 in .* is 1"),
        ("i.json", b'["a", null, "b"]', "trial 1 in .* is None"),
        ("i.json", b'{"a": 1}', "give a list"),
        ("i.json", b'["a", "b", "\\ud800"]', "printable"),
        ("i.json", b'["a"', "not JSON"),
        ("i.json", b"[" * 100_000, "not JSON"),
    ],
)
def test_other_lists_are_one_sentence(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=reason):
        read_trial_ids(tmp_path / name, 3)


def test_a_missing_list_or_a_folder_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileError, match="cannot be read"):
            read_trial_ids(path, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"train": ["a"]}, "'test' of .* are None"),
        ({"test": ["a"]}, "has 1 trial ids"),
        ({"test": ["a", "a"]}, "occurs at trials 0 and 1"),
        (["a", "b"], "expected a JSON object"),
    ],
)
def test_a_folders_list_is_checked(tmp_path: Path, content: object, reason: str) -> None:
    stimulus = np.array([5, 5])
    assert folder_trial_ids(tmp_path, "test", stimulus) == ("test/5/0", "test/5/1")
    (tmp_path / "trial_ids.json").write_text(json.dumps(content))
    with pytest.raises(FileError, match=reason):
        folder_trial_ids(tmp_path, "test", stimulus)


def test_rows_are_ids_that_need_not_be_shown() -> None:
    assert check_trial_ids(["0", "1"], 2, "x") == row_ids(2)
    assert ids_worth_showing(row_ids(3)) == {}
    assert ids_worth_showing(("1", "0")) == {0: "1", 1: "0"}
    assert len({hash_of_ids(ids) for ids in (("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""))}) == 4
