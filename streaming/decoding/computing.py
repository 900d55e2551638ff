"""What the last bits of features and pictures depend on, besides the signal: to be kept with a session."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from ...runtime.backends.base import Backend
from ...runtime.environment import versions


def computing_of(backend: Backend[Any]) -> dict[str, Any]:
    """Of a started backend, as JSON: hash of the folder's files that count, what computes, versions, machine."""
    return {
        "hash": backend.hash,
        **backend.computing,
        "versions": versions(backend.libraries),
        "machine": f"{platform.machine()} {platform.processor() or platform.system()}",
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was, a sentence each; what a session does not say is not compared."""
    found = []
    for name, value in _flat(before).items():
        here = _flat(now).get(name)
        if here != value:
            found.append(f"{name} was {_short(value)}, and is {_short(here)}")
    return found


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _short(value: object) -> str:
    text = ascii(value).strip("'")
    return text if len(text) <= 60 else f"{text[:12]}…"
