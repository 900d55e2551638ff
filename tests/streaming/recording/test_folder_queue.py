"""Who writes into a session's folder never waits for the disk, and hears where the disk gave up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.errors import FileError, InputError
from minddiffuser.runtime.images import read_image
from minddiffuser.streaming.recording.disk import put
from minddiffuser.streaming.recording.folder import SessionFolder
from minddiffuser.streaming.recording.folder_queue import FolderQueue
from minddiffuser.streaming.recording.opened import open_session

PICTURE = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


class Disk:
    """One that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.go, self.reached = threading.Event(), threading.Event()

    def write(self, file: int, data: memoryview) -> int:
        self.reached.set()
        self.go.wait()
        return put(file, data)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.go.set()


def test_what_is_given_is_written_in_its_order(tmp_path: Path) -> None:
    queue = FolderQueue(SessionFolder.create(tmp_path / "s", {"seed": 1}))
    for k in range(200):
        queue.ledger({"ordinal": k})
        queue.result({"ordinal": k})
    made = queue.picture("a", PICTURE)
    queue.describe({"more": 2})
    queue.close({"reason": "over"})
    queue.close()
    queue.ledger({"ordinal": 200})  # after the end nothing is written
    session = open_session(tmp_path / "s")
    assert [one["ordinal"] for one in session.ledger()] == [one["ordinal"] for one in session.results()]
    assert [one["ordinal"] for one in session.ledger()] == list(range(200))
    assert session.about["about"] == {"seed": 1, "more": 2}
    assert (session.about["state"], session.about["ended"]) == ("finished", {"reason": "over"})
    np.testing.assert_array_equal(read_image(tmp_path / "s" / made.file), PICTURE)
    SessionFolder.create(tmp_path / "t", {}).close()
    assert queue.stopped == ""


def test_the_lock_is_let_go_at_the_end(tmp_path: Path) -> None:
    from minddiffuser.runtime.locks import inside, locked

    queue = FolderQueue(SessionFolder.create(tmp_path / "s", {}))
    with pytest.raises(FileError, match="another process"), locked(inside(tmp_path / "s"), tmp_path):
        pass
    queue.close()
    with locked(inside(tmp_path / "s"), tmp_path):
        pass


def test_a_slow_disk_keeps_nobody_waiting_and_ends_the_writing(tmp_path: Path, disk: Disk) -> None:
    said: list[str] = []
    folder = SessionFolder.create(tmp_path / "s", {}, on_stop=said.append, write=disk.write)
    queue = FolderQueue(folder, queue_bytes=100_000)
    for k in range(1000):
        queue.result({"ordinal": k})  # returns, though the disk does not
    assert said == [queue.stopped]
    assert "the disk is too slow" in queue.stopped
    disk.go.set()
    queue.close({"reason": "over"})
    about = open_session(tmp_path / "s").about
    assert (about["state"], about["stopped"]) == ("finished", queue.stopped)
    kept = [one["ordinal"] for one in open_session(tmp_path / "s").results()]
    assert kept == list(range(len(kept)))


def test_a_disk_that_hangs_is_left_behind_at_the_end_and_said(tmp_path: Path, disk: Disk) -> None:
    said: list[str] = []
    folder = SessionFolder.create(tmp_path / "s", {}, on_stop=said.append, write=disk.write)
    queue = FolderQueue(folder, patience=0.05)
    queue.result({"ordinal": 0})
    assert disk.reached.wait(60)
    queue.close()
    assert len(said) == 1
    assert "the disk has not answered for 0.05 s" in said[0]
    disk.go.set()
    queue._thread.join()
    assert [one["ordinal"] for one in open_session(tmp_path / "s").results()] == [0]


def test_a_pictures_name_is_refused_at_once(tmp_path: Path) -> None:
    queue = FolderQueue(SessionFolder.create(tmp_path / "s", {}))
    with pytest.raises(InputError, match="a picture is named"):
        queue.picture("../a", PICTURE)
    queue.close()


def test_what_is_no_json_ends_the_writing_and_is_said(tmp_path: Path) -> None:
    """A fault of the program in one line: the session goes on, its folder is finished and not taken for whole."""
    said: list[str] = []
    queue = FolderQueue(SessionFolder.create(tmp_path / "s", {}, on_stop=said.append))
    queue.result({"ordinal": 0})
    queue.result({"ordinal": float("nan")})
    queue.close({"reason": "over"})
    assert said == [queue.stopped]
    assert "was given what it cannot hold" in queue.stopped
    session = open_session(tmp_path / "s")
    assert [one["ordinal"] for one in session.results()] == [0]
    assert (session.about["state"], session.about["stopped"]) == ("finished", queue.stopped)
