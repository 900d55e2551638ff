"""Files that are whole or one sentence."""

from pathlib import Path

import pytest

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.files import natural, sha256_of, write_json


def test_names_are_ordered_by_their_numbers() -> None:
    names = ["a", "a1", "a1b", "a2", "a10", "a10b2", "a10b10", "b1", "0", "2", "010", "11", "٣"]
    ordered = ["0", "2", "010", "11", "a", "a1", "a1b", "a2", "a10", "a10b2", "a10b10", "b1", "٣"]
    assert sorted(names, key=natural) == ordered
    assert sorted(["07", "7", "007"], key=natural) == ["007", "07", "7"]  # the same number: by the name itself
    assert sorted(["9" * 5000, "1" * 5001], key=natural)[0][0] == "9"


def test_text_that_is_not_unicode_is_one_sentence_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"near .*note \\udcff"):
        write_json(tmp_path / "settings.json", {"notes": ["a note \udcff"]})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_hashed_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileError, match=f"{path.name} cannot be read"):
            sha256_of(path)
