"""The one way to lock: an operating system's lock on a file that is never taken away.

A killed process loses its lock by itself, so a lock file that lies there means nothing. It stays there, since taking
it away while another process waits for it would leave two holders of two files with one name.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import FileError

if TYPE_CHECKING:
    from filelock import FileLock

# What a file system without locks answers (some network drives): there, nothing is held.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


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
        Another process holds the lock and `wait` is False, or the lock file cannot be made.
    """
    from filelock import FileLock, Timeout

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, preserve_lock_file=True)
        held = _acquired(lock, shown, wait=wait, on_wait=on_wait)
    except Timeout:
        raise FileError(f"another process is working in {shown}: wait for it, or give another folder") from None
    except (NotImplementedError, OSError) as error:
        if not isinstance(error, NotImplementedError) and error.errno not in _NO_LOCKS:
            raise FileError(
                f"the folder {shown} cannot be written ({error.strerror or error}): choose another one"
            ) from error
        held = False
    try:
        yield
    finally:
        if held:
            lock.release()


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
