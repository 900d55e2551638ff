"""What this process runs on and with: the cores that it may use, and the versions of libraries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import metadata

_LONGEST = 40


def usable_cores() -> int:
    """The cores that this process may run on: a container, a job scheduler or taskset may leave it a few of them."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def versions(libraries: Sequence[str]) -> dict[str, str]:
    """Versions of those libraries that are installed."""
    found = {}
    for name in libraries:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def compare_versions(
    before: object, now: Mapping[str, str], libraries: Sequence[str]
) -> tuple[list[str], list[str]] | None:
    """The libraries whose version is another one now: "torch 2.5.1" before and now; None where there is none.

    A library whose version is not known on both sides is not compared, nor one of which something else than a version
    is written: a text that is long or cannot be printed. And builds of one version for other devices
    ("2.5.1+cpu") are the same version.

    Parameters
    ----------
    before
        Versions by library, from a file: anything may stand there.
    """
    if not isinstance(before, Mapping):
        return None
    both = [name for name in libraries if _is_version(before.get(name)) and _is_version(now.get(name))]
    known = [(name, before[name], now[name]) for name in both]
    other = [(name, old, new) for name, old, new in known if not same_version(old, new)]
    if not other:
        return None
    return [f"{name} {old}" for name, old, _ in other], [f"{name} {new}" for name, _, new in other]


def _is_version(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= _LONGEST and text.isprintable()


def same_version(one: str, other: str) -> bool:
    """Whether two builds are of one release, for other devices perhaps (2.5.1 and 2.5.1+cpu)."""
    return one.partition("+")[0] == other.partition("+")[0]
