"""One holder at a time, whoever dies, and the lock's file stays where it is."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.locks import beside, inside, locked

# Holds the lock until its standard input ends.
HOLDER = """
import sys
from pathlib import Path
from minddiffuser.runtime.locks import inside, locked
folder = Path(sys.argv[1])
with locked(inside(folder), folder):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_one_process_at_a_time(tmp_path: Path, killed: bool) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with (
                pytest.raises(FileError, match=f"another process is working in {tmp_path}: wait for it"),
                locked(inside(tmp_path), tmp_path),
            ):
                pass
        finally:
            if killed:
                other.kill()
            other.communicate()
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
        assert waiting.wait(600)
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


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_drive_without_locks_is_written_all_the_same_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(code, "none here")

    monkeypatch.setattr(FileLock, "acquire", none)
    with (
        pytest.warns(UserWarning, match="does not support locks: run one process at a time"),
        locked(inside(tmp_path), tmp_path),
    ):
        (tmp_path / "a").touch()
    assert (tmp_path / "a").exists()


def test_a_lock_service_that_does_not_answer_is_no_leave_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside(tmp_path).touch()

    def none(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", none)
    with (
        pytest.raises(
            FileError, match=rf"cannot be locked \(No locks available\): check that you may write {tmp_path}"
        ),
        locked(inside(tmp_path), tmp_path),
    ):
        pass


@pytest.mark.parametrize(("folder", "lock"), [(0o777, 0o666), (0o775, 0o664), (0o755, 0o644), (0o700, 0o600)])
def test_who_may_write_the_folder_may_lock_it(tmp_path: Path, folder: int, lock: int) -> None:
    """Under a usual umask too: the file stays, and a colleague would be locked out for good."""
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(folder)
    before = os.umask(0o022)
    try:
        with locked(inside(place), place):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(inside(place).stat().st_mode) == lock
