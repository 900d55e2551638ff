"""Records of finished batches: what is believed, and what is made again."""

import json
from pathlib import Path

import pytest

from minddiffuser.runtime.batch.journal import Record, finished, write_record
from minddiffuser.runtime.errors import FileError

TRIALS = (3, 4, 5)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with the record of batch 1: trial 4 has no picture, and a refinement broke off in trial 5."""
    (tmp_path / "a.png").write_bytes(b"a picture")
    write_record(tmp_path, 1, TRIALS, {"stage1": 0.1 + 0.2}, ["a.png"], [5], {4: "it was NaN"})
    return tmp_path


def edit(run: Path, **changes: object) -> None:
    path = run / "journal" / "000001.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_record_comes_back_as_it_was_written(run: Path) -> None:
    record = finished(run, 1, TRIALS)
    assert isinstance(record, Record)
    assert (record.batch, record.trials, record.failed) == (1, TRIALS, (5,))
    assert record.lost == {4: "it was NaN"}
    assert record.seconds == {"stage1": 0.1 + 0.2}
    assert finished(run, 0, (0, 1, 2)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"lost": {}},
        {"lost": {"4": "another reason"}},
        {"failed": []},
        {"seconds": {"stage1": 5.0}},
        {"seconds": None},
        {"trials": [3, 4, 6]},
        {"batch": 2},
        {"seal": "0" * 64},
        {"seal": None},
        {"version": 1},
        {"version": "2"},
        {"extra": 1},
    ],
)
def test_an_edited_record_is_no_record(run: Path, changes: dict[str, object]) -> None:
    edit(run, **changes)
    assert finished(run, 1, TRIALS) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", "[" * 10_000])
def test_a_damaged_record_is_no_record(run: Path, text: str) -> None:
    (run / "journal" / "000001.json").write_text(text)
    assert finished(run, 1, TRIALS) is None


def test_a_record_of_other_trials_or_of_another_batch_is_no_record(run: Path) -> None:
    assert finished(run, 1, (3, 5)) is None
    (run / "journal" / "000001.json").rename(run / "journal" / "000002.json")
    assert finished(run, 2, TRIALS) is None


def test_a_newer_releases_record_is_refused(run: Path) -> None:
    edit(run, version=99)
    with pytest.raises(FileError, match="journal version 99, this release reads version 2"):
        finished(run, 1, TRIALS)
