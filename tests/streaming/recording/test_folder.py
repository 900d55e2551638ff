"""A session's folder: its owner's alone, never half a line, and never an error while a session runs."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.images import pixel_hash, read_image
from minddiffuser.streaming.recording.folder import SessionFolder
from minddiffuser.streaming.recording.opened import open_session


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = SessionFolder.create(tmp_path / "a" / "s1", {"bundle": "abc", "seed": 3})
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    made = folder.picture("0001-stage1", picture)
    for k in range(3):
        folder.ledger({"ordinal": k, "state": "pending"})
        folder.result({"ordinal": k, "text": "face/ä \ud800", "picture": made.file})
    session = open_session(folder.path)  # while it runs
    assert (session.id, session.about["state"]) == ("s1", "recording")
    assert session.about["about"] == {"bundle": "abc", "seed": 3}
    assert [one["ordinal"] for one in session.results()] == [0, 1, 2]
    folder.close({"decoded": 3})
    folder.close()
    session = open_session(folder.path)
    assert session.about["state"] == "finished"
    assert session.about["ended"] == {"decoded": 3}
    assert session.about["versions"]["numpy"] == np.__version__
    assert len(list(session.ledger())) == 3
    assert np.array_equal(read_image(folder.path / made.file), picture)
    assert made.pixels_sha256 == pixel_hash(picture)


def test_everything_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = SessionFolder.create(tmp_path / "s", {})
        folder.result({})
        folder.picture("a", np.zeros((2, 2, 3), np.uint8))
        folder.close()
    finally:
        os.umask(before)
    for path in [folder.path, *folder.path.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    folder = SessionFolder.create(tmp_path / "s", {})
    with pytest.raises(FileError, match="another process is working"):
        SessionFolder.create(tmp_path / "s", {})
    folder.close()
    with pytest.raises(FileError, match=r"holds .* is not a session folder|holds ledger.jsonl"):
        SessionFolder.create(tmp_path / "s", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        SessionFolder.create(tmp_path / "file", {})


@pytest.mark.parametrize("name", ["", "../a", "a/b", "a.b", "ä", "a b", "x\0"])
def test_a_pictures_name_is_no_path(tmp_path: Path, name: str) -> None:
    folder = SessionFolder.create(tmp_path / "s", {})
    with pytest.raises(InputError, match="a picture is named"):
        folder.picture(name, np.zeros((2, 2, 3), np.uint8))
    folder.close()


def test_a_full_disk_ends_the_writing_and_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    folder = SessionFolder.create(tmp_path / "s", {}, on_stop=said.append)
    folder.result({"ordinal": 0})
    left, real = [7], os.write

    def write(file: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        n = real(file, bytes(data)[: left[0]])
        left[0] -= n
        return n

    monkeypatch.setattr(os, "write", write)
    folder.result({"ordinal": 1})
    assert "the disk is full" in folder.stopped
    folder.result({"ordinal": 2})
    folder.ledger({"ordinal": 2})
    made = folder.picture("a", np.zeros((2, 2, 3), np.uint8))
    assert not (folder.path / made.file).exists()
    assert said == [folder.stopped]
    monkeypatch.undo()
    folder.close()
    assert (folder.path / "results.jsonl").read_bytes() == b'{"ordinal": 0}\n'
    assert open_session(folder.path).about["stopped"] == folder.stopped


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "has no session.json"),
        ("{", "cannot be read"),
        ('{"format": "minddiffuser-bundle", "version": 1}', "is not a MindDiffuser session"),
        ('{"format": "minddiffuser-session", "version": 9}', "version 9"),
        ('{"format": "minddiffuser-session", "version": 1}', "lacks the session's id"),
    ],
)
def test_what_is_no_session_is_said(tmp_path: Path, content: str | None, error: str) -> None:
    if content is not None:
        (tmp_path / "session.json").write_text(content)
    with pytest.raises(FileError, match=error):
        open_session(tmp_path)


def test_a_cut_last_line_is_left_out(tmp_path: Path) -> None:
    folder = SessionFolder.create(tmp_path / "s", {})
    folder.ledger({"a": 1})
    with open(folder.path / "ledger.jsonl", "ab") as file:
        file.write(json.dumps({"a": 2}).encode()[:-1])
    assert list(open_session(folder.path).ledger()) == [{"a": 1}]
    folder.close()
