"""One holder at a time, whoever dies, and the lock's file stays where it is."""

from __future__ import annotations

import errno
import multiprocessing
import threading
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from filelock import FileLock

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.locks import beside, inside, locked

SPAWN = multiprocessing.get_context("spawn")


def hold(folder: Path, held: Event, leave: Event) -> None:
    with locked(inside(folder), folder):
        held.set()
        leave.wait()


@pytest.mark.parametrize("killed", [False, True])
def test_one_process_at_a_time(tmp_path: Path, killed: bool) -> None:
    held, leave = SPAWN.Event(), SPAWN.Event()
    other = SPAWN.Process(target=hold, args=(tmp_path, held, leave))
    other.start()
    try:
        assert held.wait(240)
        with (
            pytest.raises(FileError, match=f"another process is working in {tmp_path}: wait for it"),
            locked(inside(tmp_path), tmp_path),
        ):
            pass
    finally:
        if killed:
            other.kill()
        leave.set()
        other.join()
    with locked(inside(tmp_path), tmp_path):
        pass


def test_the_second_waits_and_says_so_and_the_file_is_never_taken_away(tmp_path: Path) -> None:
    """A waiting holder has opened the file: were it unlinked, a third process would lock another file of that name."""
    file, said, entered = beside(tmp_path / "data"), list[str](), threading.Event()
    waiting = threading.Event()

    def second() -> None:
        def on_wait(line: str) -> None:
            said.append(line)
            waiting.set()

        with locked(file, tmp_path / "data", wait=True, on_wait=on_wait):
            entered.set()

    thread = threading.Thread(target=second)
    with locked(file, tmp_path / "data"):
        inode = file.stat().st_ino
        thread.start()
        assert waiting.wait(240)
        assert not entered.is_set()
    thread.join()
    assert entered.is_set()
    assert said == [f"another process is working in {tmp_path / 'data'}: waiting for it to end"]
    assert file.stat().st_ino == inode
    assert file.name == ".data.lock"


def test_a_lock_is_given_back_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(inside(tmp_path), tmp_path):
        raise ZeroDivisionError
    with locked(inside(tmp_path), tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(FileError, match="file/deep cannot be written .*choose another one"),
        locked(inside(tmp_path / "file" / "deep"), tmp_path / "file" / "deep"),
    ):
        pass


def test_a_drive_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", none)
    with locked(inside(tmp_path), tmp_path):
        (tmp_path / "a").touch()
    assert (tmp_path / "a").exists()
