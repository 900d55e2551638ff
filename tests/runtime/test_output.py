"""A command writes into a folder that is new, empty, or of its own kind, and touches nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.output import check_output, draft_of, is_leftover

RUN = {"what": "run folder", "marker": "settings.json", "kind": "run-settings"}


def test_new_and_empty_folders_are_free(tmp_path: Path) -> None:
    assert not check_output(tmp_path / "new", **RUN)
    assert not check_output(tmp_path, **RUN)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".lock", ".settings.json.4711.draft"):
        (tmp_path / name).touch()
        assert is_leftover(name)
    assert not check_output(tmp_path, **RUN)
    assert not (tmp_path / "new").exists()


def test_a_folder_of_the_same_kind_is_known(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"format": "minddiffuser-run-settings"}))
    (tmp_path / "my notes.txt").touch()
    assert check_output(tmp_path, **RUN)


@pytest.mark.parametrize("name", ["report.html", ".git", ".hidden.draft", "data.txt", "4711.draft"])
def test_a_strangers_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileError, match="is not a run folder: give a new or empty folder") as caught:
        check_output(tmp_path, **RUN)
    assert name in str(caught.value)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("content", ["{}", '{"format": "minddiffuser-checkpoint"}', '{"editor.fontSize": 12}'])
def test_a_marker_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(FileError, match="settings.json that is not of a run folder"):
        check_output(tmp_path, **RUN)


def test_files_and_broken_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(FileError, match="give a new or empty folder"):
            check_output(tmp_path / name, **RUN)


def test_drafts_name_what_they_were_to_become() -> None:
    assert draft_of(".report.html.12.draft") == "report.html"
    for name in ("report.html", ".report.html.draft", ".x.12.draft2", "x.12.draft"):
        assert draft_of(name) is None
