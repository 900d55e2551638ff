"""The one way to lock: an operating system's lock on a file that is never removed.

A killed process loses its lock by itself, so a lock file that lies there means nothing. It stays there, since taking
it away while another process waits for it would leave two holders of two files with one name.
"""

from __future__ import annotations

import errno
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import FileError

if TYPE_CHECKING:
    from filelock import FileLock

# What a file system without locks answers (some network drives): there, nothing is held, and a warning says so.
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def inside(folder: Path) -> Path:
    """The lock file of a folder whose files are written one by one."""
    return folder / ".lock"


def beside(folder: Path) -> Path:
    """The lock file of a folder that another one may replace whole."""
    return folder.parent / f".{folder.name}.lock"


@contextmanager
def locked(
    file: Path, shown: Path, *, wait: bool = False, on_wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold a lock, so that two processes never write one folder.

    Parameters
    ----------
    file
        :func:`inside` or :func:`beside` of the folder. Its parent is made where it is missing.
    shown
        The folder, for messages.
    wait
        Whether to wait for another process to end, or to raise at once.
    on_wait
        Receives one line where there is something to wait for.

    Raises
    ------
    FileError
        Another process holds the lock and `wait` is False, or the lock file cannot be made or opened.

    Warns
    -----
    UserWarning
        The drive has no locks: two processes could write one folder.
    """
    from filelock import FileLock, Timeout

    held = False
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Held until it is let go of, by whichever thread.
        lock = FileLock(file, preserve_lock_file=True, thread_local=False)
        held = _acquired(lock, shown, wait=wait, on_wait=on_wait)
        _open_to_who_may_write(file)
    except Timeout:
        raise FileError(f"another process is working in {shown}: wait for it, or give another folder") from None
    except NotImplementedError:
        _warn(shown)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _cannot_lock(file, shown, error) from error
        _warn(shown)
    try:
        yield
    finally:
        if held:
            lock.release()


def _open_to_who_may_write(file: Path) -> None:
    """Let everybody who may write the folder open its lock file, whatever umask it was made with."""
    wanted = stat.S_IMODE(file.parent.stat().st_mode) & 0o666 | 0o600
    with suppress(OSError):  # a colleague's own lock file
        if stat.S_IMODE(file.stat().st_mode) != wanted:
            file.chmod(wanted)


def _warn(shown: Path) -> None:
    warnings.warn(f"the file system of {shown} does not support locks: run one process at a time there", stacklevel=4)


def _cannot_lock(file: Path, shown: Path, error: OSError) -> FileError:
    if file.exists():
        return FileError(
            f"{shown} cannot be locked ({error.strerror or error}): check that you may write {file}, and that the "
            "drive is there, or choose another folder"
        )
    return FileError(f"the folder {shown} cannot be written ({error.strerror or error}): choose another one")


def _acquired(lock: FileLock, shown: Path, *, wait: bool, on_wait: Callable[[str], None] | None) -> bool:
    from filelock import Timeout

    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise
        if on_wait is not None:
            on_wait(f"another process is working in {shown}: waiting for it to end")
        lock.acquire(timeout=-1, poll_interval=0.2)
    return True
