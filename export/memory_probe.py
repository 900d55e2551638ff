"""How much memory a call takes, and whether there is room for more: on Linux; elsewhere nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeVar

T = TypeVar("T")

_SELF, _MACHINE = Path("/proc/self"), Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def measured(call: Callable[[], T]) -> tuple[T, int | None]:
    """What a call gives, and by how many bytes the process's memory rose at most while it ran; None: unknown."""
    try:
        (_SELF / "clear_refs").write_text("5")  # resets the peak to the present value
        before = _kilobytes(_SELF / "status", "VmRSS")
    except OSError:
        return call(), None
    given = call()
    return given, max(0, _kilobytes(_SELF / "status", "VmHWM") - before) << 10


def available() -> int | None:
    """Bytes that the process can still have, of the machine's and of its control groups'; None: unknown."""
    try:
        free = _kilobytes(_MACHINE, "MemAvailable") << 10
    except OSError:
        return None
    return min([free, *(room for group in _groups() if (room := _room(group)) is not None)])


def _groups() -> Iterator[Path]:
    """The folders of this process's control groups and of those that they are in, of either version.

    A container may show its own group as the root, whatever path the process is said to be in.
    """
    try:
        lines = (_SELF / "cgroup").read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root, inner = _GROUP / "memory" if kinds else _GROUP, PurePosixPath(path.lstrip("/"))
        yield from (root / part for part in (inner, *inner.parents))


def _room(group: Path) -> int | None:
    """Bytes that a control group leaves; None where it sets no limit. What is mapped from files can be given back."""
    for limit, used, mapped in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most = int((group / limit).read_text())
            return most - int((group / used).read_text()) + _words(group / "memory.stat").get(mapped, 0)
        except (OSError, ValueError):  # not there, or "max"
            continue
    return None


def _kilobytes(path: Path, name: str) -> int:
    lines = (line.split() for line in path.read_text().splitlines())
    found = next((words[1] for words in lines if words[:1] == [f"{name}:"]), None)
    if found is None:
        raise OSError(f"{path} says nothing of {name}")
    return int(found)


def _words(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}
