"""When Python looks for memory that is no longer used, and gives it back to the system for other libraries."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager


def give_back() -> None:
    """Collect what is no longer used, and let the C library return it; where it knows no such call, it keeps it."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    trim(0)


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no cycles: traces are millions of objects that live on, and looking takes a tenth of their time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
