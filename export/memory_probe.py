"""How much memory a call takes, and whether there is room for more: on Linux; elsewhere nothing is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_SELF, _MACHINE = Path("/proc/self"), Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def measured(call: Callable[[], T]) -> tuple[T, int | None]:
    """What a call gives, and by how many bytes the process's memory rose at most while it ran; None: unknown."""
    try:
        (_SELF / "clear_refs").write_text("5")  # sets the highest figure to the present one
        before = _kilobytes(_SELF / "status", "VmRSS")
    except OSError:
        return call(), None
    given = call()
    return given, max(0, _kilobytes(_SELF / "status", "VmHWM") - before) << 10


def available() -> int | None:
    """Bytes that the process can still have, of the machine's and of its control group's; None: unknown."""
    try:
        free = _kilobytes(_MACHINE, "MemAvailable") << 10
    except OSError:
        return None
    try:
        limit = (_GROUP / "memory.max").read_text().strip()
        used = int((_GROUP / "memory.current").read_text())
        mapped = _words(_GROUP / "memory.stat").get("inactive_file", 0)
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used + mapped)


def _kilobytes(path: Path, name: str) -> int:
    lines = (line.split() for line in path.read_text().splitlines())
    found = next((words[1] for words in lines if words[:1] == [f"{name}:"]), None)
    if found is None:
        raise OSError(f"{path} says nothing of {name}")
    return int(found)


def _words(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}
