"""Files that are whole or one sentence."""

import errno
import fcntl
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from minddiffuser.runtime.errors import FileError
from minddiffuser.runtime.files import (
    natural,
    read_json,
    read_tensors,
    replacing,
    sha256_of,
    write_bytes,
    write_json,
    write_tensors,
)


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


@pytest.fixture
def fsync_as_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, a handle that was opened for reading only cannot be flushed (EBADF)."""
    real = os.fsync

    def fsync(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.usefixtures("fsync_as_on_windows")
def test_what_is_flushed_was_opened_for_writing(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    write_tensors(tmp_path / "a.safetensors", {"a": np.zeros(2, np.float32)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.safetensors"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_may_be_read_by_whom_the_umask_allows(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "plain").write_bytes(b"")
        write_tensors(tmp_path / "a.safetensors", {"a": np.zeros(2, np.float32)})
        write_bytes(tmp_path / "a.png", b"")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o666 & ~umask}, modes


@pytest.mark.parametrize("name", ["a.json", "a.safetensors"])
def test_what_may_not_be_opened_is_not_told_as_damage(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_json if name.endswith("json") else read_tensors
    (tmp_path / name).mkdir()
    with pytest.raises(FileError, match="the thing at .* cannot be opened .*check that it is a file") as caught:
        read(tmp_path / name, "the thing")
    assert "damaged" not in str(caught.value)
    (tmp_path / "deep").touch()
    with pytest.raises(FileError, match="Not a directory"):
        read(tmp_path / "deep" / name, "the thing")
    with pytest.raises(FileError, match="is missing"):
        read(tmp_path / "nowhere" / name, "the thing")

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    # Not by chmod: the tests may be run by root, whom nothing is forbidden.
    monkeypatch.setattr("builtins.open", forbidden)
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(FileError, match=r"\(Permission denied\).*your permissions"):
        read(tmp_path / name, "the thing")


def test_a_failed_writer_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")

    def fail() -> None:
        with replacing(tmp_path / "a") as draft:
            draft.write_bytes(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}
