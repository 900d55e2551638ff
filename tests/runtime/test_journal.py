"""Records of finished pieces: what is believed, and what is made again."""

import json
from pathlib import Path

import pytest

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.journal import Journal, Record

CONTENT = {"trials": [3, 4, 5], "seconds": {"stage1": 0.1 + 0.2}}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """With the record of one piece, b."""
    (tmp_path / "a.png").write_bytes(b"a picture")
    found = Journal(tmp_path, "key")
    found.finish("b", ["a.png"], **CONTENT)
    return found


def edit(folder: Path, **changes: object) -> None:
    path = folder / "journal" / "b.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_record_comes_back_as_it_was_written(journal: Journal, tmp_path: Path) -> None:
    record = journal.finished("b", trials=[3, 4, 5])
    assert isinstance(record, Record)
    assert (record.name, list(record.files), record.content) == ("b", ["a.png"], CONTENT)
    assert list(journal.records()) == [record]
    assert journal.finished("c") is None
    assert Journal(tmp_path, "another key").finished("b") is None


@pytest.mark.parametrize("data", [None, b"another picture"])
def test_a_piece_whose_file_has_gone_or_was_changed_is_made_again(
    journal: Journal, tmp_path: Path, data: bytes | None
) -> None:
    (tmp_path / "a.png").unlink() if data is None else (tmp_path / "a.png").write_bytes(data)
    assert journal.finished("b") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"content": {}},
        {"content": {**CONTENT, "seconds": {"stage1": 5.0}}},
        {"content": None},
        {"name": "c"},
        {"key": "another key"},
        {"seal": "0" * 64},
        {"seal": None},
        {"version": 1},
        {"version": "3"},
        {"extra": 1},
    ],
)
def test_an_edited_record_is_no_record(journal: Journal, tmp_path: Path, changes: dict[str, object]) -> None:
    edit(tmp_path, **changes)
    assert journal.finished("b") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", "[" * 10_000])
def test_a_damaged_record_is_no_record(journal: Journal, tmp_path: Path, text: str) -> None:
    (tmp_path / "journal" / "b.json").write_text(text)
    assert journal.finished("b") is None


def test_a_record_that_says_something_else_or_of_another_piece_is_no_record(journal: Journal, tmp_path: Path) -> None:
    assert journal.finished("b", trials=[3, 5]) is None
    (tmp_path / "journal" / "b.json").rename(tmp_path / "journal" / "c.json")
    assert journal.finished("c") is None


def test_a_newer_releases_record_is_refused(journal: Journal, tmp_path: Path) -> None:
    edit(tmp_path, version=99)
    with pytest.raises(FileError, match="journal version 99, this release reads version 3"):
        journal.finished("b")


def test_dropped_records_leave_what_is_somebody_elses(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "journal" / ".b.json.77.draft").touch()
    (tmp_path / "journal" / "mine.txt").touch()
    journal.drop()
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["mine.txt"]
    (tmp_path / "journal" / "mine.txt").unlink()
    journal.drop()
    assert not (tmp_path / "journal").exists()
