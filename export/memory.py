"""Memory that was freed goes back to the system, where the next gigabytes are another library's."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Collect what is no longer used, and let the C library return it; where it knows no such call, it keeps it."""
    gc.collect()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    trim(0)
