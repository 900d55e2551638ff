"""How a session meets the disk: what is handed to the system, and what is said where the system refuses or hangs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

Put = Callable[[int, memoryview], int]
"""An open file and bytes -> how many of them were taken; OSError where the system refuses. Usually :func:`put`."""

HUNG_SECONDS = 10.0
"""How long the end of a session waits for a disk that does not answer."""


def put(file: int, data: memoryview) -> int:
    """Hand bytes to the system."""
    return os.write(file, data)


def why_stopped(path: Path, error: OSError) -> str:
    """What to say when the system refuses to write in the middle of a session."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = f"the disk is full while writing {path}" if full else f"{path} cannot be written ({error.strerror or error})"
    return f"{what}: nothing more is recorded, decoding goes on"


def why_hung(path: Path, seconds: float) -> str:
    """What to say when the system has not come back from writing at the end of a session."""
    return (
        f"the disk has not answered for {seconds:g} s while {path} was to be finished: what waited is perhaps not in "
        f"it, md-stream repair {path.parent} finishes it once the disk answers"
    )
