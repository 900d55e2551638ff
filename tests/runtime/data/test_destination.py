"""A data folder takes another's place: neither is lost, whatever stops the process; nothing foreign goes with it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from minddiffuser.runtime.data.destination import check_target, claimed
from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.files import write_json
from minddiffuser.runtime.locks import beside as lock_of
from minddiffuser.runtime.locks import locked
from minddiffuser.runtime.output import DESKTOP, check_place, replacing_folder


def make(folder: Path, content: str) -> None:
    """What counts as a data folder here: a description, and one file that tells the versions apart."""
    (folder / "stimuli" / "train").mkdir(parents=True)
    (folder / "stimuli" / "train" / "000000.png").write_text("x")
    (folder / "captions.json").write_text(content)
    write_json(folder / "data.json", {"format": "minddiffuser-data", "version": 1})


def replaced(folder: Path) -> None:
    with replacing_folder(folder, "data.json") as draft:
        make(draft, "new")


def version(folder: Path) -> str:
    return (folder / "captions.json").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(tmp_path / "data", "old")
    return tmp_path / "data"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("done", [False, True])
def test_an_interruption_between_the_renames_loses_nothing(
    folder: Path, at: int, done: bool, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, calls = Path.rename, []

    def interrupted(self: Path, target: Path) -> Any:
        calls.append(target)
        if len(calls) != at:
            return rename(self, target)
        if done:
            rename(self, target)
        raise error

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(error):
        replaced(folder)
    assert version(folder) == ("new" if at == 2 and done else "old")
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_a_failure_while_writing_leaves_the_old_one(folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing_folder(folder, "data.json"):
        raise KeyboardInterrupt
    assert version(folder) == "old"
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def left_by_another_process(folder: Path) -> tuple[Path, Path]:
    """Where a killed process keeps the old folder and its draft, with the lock file that it leaves."""
    lock_of(folder).touch()
    return folder.with_name(".data.4194303.old"), folder.with_name(".data.4194303.draft")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".data.lock")


def test_what_a_killed_process_left_is_put_right(folder: Path) -> None:
    old, draft = left_by_another_process(folder)
    folder.rename(old)
    make(draft, "half")
    with pytest.raises(FileError, match="data folder already"):
        check_target(folder)
    assert version(folder) == "old"
    assert names(folder.parent) == ["data"]
    make(old, "older")  # killed before it was deleted
    with claimed(folder, replace=True):
        replaced(folder)
    assert version(folder) == "new"
    assert names(folder.parent) == ["data"]


def test_a_working_process_keeps_what_it_has_moved(folder: Path) -> None:
    old, draft = left_by_another_process(folder)
    folder.rename(old)  # between the two renames
    make(draft, "theirs")
    with locked(lock_of(folder), folder):
        for use in (check_target, claimed(folder, replace=True).__enter__):
            with pytest.raises(FileError, match="another process is working in .*data: wait for it, or give another"):
                use(folder) if use is check_target else use()  # type: ignore[call-arg]
        assert (version(old), version(draft)) == ("old", "theirs")
        assert not folder.exists()


def test_a_look_at_a_place_leaves_nothing_there(tmp_path: Path) -> None:
    check_target(tmp_path / "new" / "data")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(FileError, match="full holds other files"):
        check_target(tmp_path / "full")
    assert names(tmp_path) == ["full"]


def test_the_lock_is_the_folders_and_not_the_links(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(folder)
    with claimed(folder, replace=True), pytest.raises(FileError, match="another process is working in .*link"):
        check_target(tmp_path / "elsewhere" / "link", replace=True)


@pytest.mark.parametrize(
    ("stray", "named"),
    [
        ("checkpoint/weights.bin", "checkpoint"),
        ("notes.txt", "notes.txt"),
        ("stimuli/val/000000.png", "stimuli/val"),
        ("stimuli/train/drawing.psd", "stimuli/train/drawing.psd"),
    ],
)
def test_foreign_content_is_never_replaced(folder: Path, stray: str, named: str) -> None:
    check_target(folder, replace=True)
    (folder / stray).parent.mkdir(exist_ok=True)
    (folder / stray).write_text("years of work")
    with pytest.raises(FileError, match=f"holds {named}, which is no part"):
        check_target(folder, replace=True)
    assert (folder / stray).read_text() == "years of work"


@pytest.mark.parametrize("name", [*sorted(DESKTOP), "THUMBS.DB", "Desktop.ini", "._data.json"])
def test_what_a_desktop_leaves_is_no_obstacle(folder: Path, tmp_path: Path, name: str) -> None:
    for place in (folder, folder / "stimuli", folder / "stimuli" / "train"):
        (place / name).write_text("x")
    check_target(folder, replace=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / name).write_text("x")
    check_target(tmp_path / "empty")


def test_here_is_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = (tmp_path / "here").stat().st_ino
    check_target(".")
    replaced(Path("."))
    assert version(Path(".")) == "new"  # the shell that is there sees it
    assert (tmp_path / "here").stat().st_ino == before
    with pytest.raises(FileError, match="while you are in it"):
        check_target(".", replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_here_stays_empty_when_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Any:
        if self.name == "data.json":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replaced(Path("."))
    assert list((tmp_path / "here").iterdir()) == []


def test_a_link_stays_and_its_target_is_replaced(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    replaced(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert version(folder) == "new"


@pytest.mark.parametrize("name", ["x" * 250, "y" * 300, "new/" + "z" * 300, "w" * 300 + "/new"])
def test_names_that_are_too_long_are_told_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileError, match="cannot be written .*too long.*: choose another folder"):
        check_target(tmp_path / name)  # of 250, the draft's name would be too long
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in ("file/data", "file/more/data"):
        with pytest.raises(FileError, match="is a file"):
            check_target(tmp_path / place)
    with pytest.raises(FileError, match="too long"):
        check_place(tmp_path / "new", "n" * 256)
    check_place(tmp_path / "new", "n" * 255)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(FileError):
        check_target(tmp_path / "loop")
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(FileError, match="no permission"):
            check_target(tmp_path / "locked" / "data")
    shutil.rmtree(tmp_path / "locked", ignore_errors=True)
