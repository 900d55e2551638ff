"""The table of events and pictures: what it may say, and each way in which it can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_files import write_pictures, write_table

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.training.datasets.reader import Place
from minddiffuser.training.datasets.recording.table import find_table, read_table

ROW = {"event": "S 1", "picture": "pictures/0.png", "split": "train", "caption": "a cat"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures", 4)
    return tmp_path


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_rows_and_pictures(folder: Path, ending: str) -> None:
    rows = [
        {**ROW, "concept": "cat"},
        {**ROW, "event": "S 2", "picture": "pictures/3.png", "caption": "", "concept": "dog"},
        {**ROW, "event": "S 3", "caption": "a cat|a small cat", "concept": "cat"},
        {**ROW, "event": "S 9", "picture": "n/a", "concept": ""},
    ]
    table = read_table(write_table(folder / f"events{ending}", rows))
    assert [(row.event, row.picture, row.line) for row in table.rows] == [("S 1", 0, 2), ("S 2", 1, 3), ("S 3", 0, 4)]
    assert [picture.source for picture in table.pictures] == [
        Place(root=folder.resolve(), path=f"pictures/{k}.png") for k in (0, 3)
    ]
    assert table.pictures[0].captions == ("a cat", "a small cat")
    assert table.pictures[1].captions == ("a picture of a dog",)
    assert [picture.concept for picture in table.pictures] == ["cat", "dog"]
    assert (table.by, table.n_without, table.files) == ("event", 1, [])


def test_semicolons_other_columns_and_capitals(folder: Path) -> None:
    path = folder / "events.csv"
    path.write_text("﻿Onset;Duration; Picture ;split;caption;file\n1,5;0,1;0.png;test;;run1\n2.25;;1.png;train;x;run2\n")
    table = read_table(path, folder / "pictures")
    assert [(row.onset, row.file) for row in table.rows] == [(1.5, "run1"), (2.25, "run2")]
    assert table.files == ["run1", "run2"]
    assert table.pictures[0].captions == ()


def test_pictures_of_an_array_file(folder: Path) -> None:
    np.save(folder / "all.npy", np.zeros((3, 8, 8, 3), np.uint8))
    rows = [{"sample": 10 * k, "picture": "all.npy", "index": k, "split": "train", "concept": "x"} for k in range(3)]
    table = read_table(write_table(folder / "events.csv", rows))
    assert [picture.source.index for picture in table.pictures] == [0, 1, 2]  # type: ignore[union-attr]
    assert [row.sample for row in table.rows] == [0, 10, 20]


def test_a_path_from_the_top_lies_below_the_pictures(folder: Path) -> None:
    rows = [{**ROW, "picture": str(folder / "pictures/2.png")}]
    table = read_table(write_table(folder / "events.csv", rows))
    assert table.pictures[0].source == Place(root=folder.resolve(), path="pictures/2.png")
    with pytest.raises(InputError, match="line 2: the picture .* does not lie below .*--pictures"):
        read_table(folder / "events.csv", folder / "elsewhere")


def test_the_table_beside_the_recordings_is_found(folder: Path) -> None:
    with pytest.raises(FileError, match=r"holds no .csv or .tsv file: give the table .* with --table"):
        find_table(folder)
    only = write_table(folder / "shown.csv", [ROW])
    assert find_table(folder) == find_table(folder / "recording.fif") == only
    write_table(folder / "participants.tsv", [ROW])
    with pytest.raises(FileError, match=r"holds 2 tables \(participants.tsv, shown.csv\)"):
        find_table(folder)
    named = write_table(folder / "Events.tsv", [ROW])
    assert find_table(folder) == named


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**ROW, "split": "validation"}], "line 2: split is 'validation': give train or test"),
        ([{**ROW, "caption": ""}], "line 2: a training picture has neither caption nor concept"),
        ([{**ROW, "picture": "pictures/9.png"}], r"line 2: the picture .*9.png does not exist: correct the path"),
        ([{**ROW, "event": ""}], "line 2: event is empty"),
        ([{**ROW, "onset": 1}], "has the columns event and onset, and needs one of event"),
        ([{"picture": "pictures/0.png", "split": "train", "caption": "x"}], "has none of event"),
        ([{"event": 1, "caption": "x"}], "has the columns event, caption, and picture is missing"),
        ([ROW, {**ROW, "picture": "pictures/1.png"}], r"lines 2 and 3: the event 'S 1' stands for two pictures"),
        ([ROW, {**ROW, "event": 2, "split": "test"}], r"lines 2 and 3: the split of 'pictures/0.png' is 'train' and"),
        (
            [{**ROW, "concept": ""}, {**ROW, "event": 2, "concept": "cat", "picture": "pictures/1.png"}],
            "line 2: the picture has no concept, and others have one",
        ),
        ([{**ROW, "picture": ""}], "names no picture"),
        ([{**{k: v for k, v in ROW.items() if k != "event"}, "onset": "soon"}], "onset is 'soon'"),
        ([{**{k: v for k, v in ROW.items() if k != "event"}, "sample": "-5"}], "sample is '-5'"),
        ([{**ROW, "index": "one"}], "index is 'one'"),
        (
            [{**ROW, "event": "7"}, {**ROW, "event": "7.0", "picture": "pictures/1.png"}],
            r"lines 2 and 3: the event '7.0' stands for two pictures",
        ),
        (
            [ROW, {**ROW, "event": 2, "caption": "a cat, asleep"}],
            "line 3: there are 5 cells for 4 columns: put texts that contain ',' between quotation marks",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(folder: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises((FileError, InputError), match=message):
        read_table(write_table(folder / "events.csv", rows))


def test_a_file_that_is_no_table(folder: Path) -> None:
    with pytest.raises(FileError, match="0.png is a picture and no UTF-8 text: save the table as CSV"):
        read_table(folder / "pictures/0.png")
    with pytest.raises(FileError, match="cannot be read"):
        read_table(folder / "nowhere.csv")
    (folder / "open.csv").write_text(f'event,picture,split,caption\nS 1,0.png,train,"a{"a" * 200_000}')
    with pytest.raises(FileError, match="is no table .*: is a quotation mark never closed"):
        read_table(folder / "open.csv")
    (folder / "empty.csv").write_text("")
    with pytest.raises(FileError, match="has the columns none"):
        read_table(folder / "empty.csv")
