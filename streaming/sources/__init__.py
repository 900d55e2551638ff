"""Where a live signal comes from: a new source is one file and one line here, and ``--source`` knows it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ...runtime.errors import InputError, shown
from .base import Source, Wanted

# Prefix of --source: the module here, and the function in it that takes what stands behind the colon and a Wanted.
SOURCES: Mapping[str, tuple[str, str]] = {
    "lsl": (".lsl", "open_lsl"),
    "replay": (".replay", "open_replay"),
    "chaos": ("..chaos.source", "open_chaos"),
}


def open_source(text: str, wanted: Wanted) -> Source:
    """Open what ``--source`` names, such as "lsl:name=EEG,markers=Markers" or "replay:session.xdf".

    Raises
    ------
    InputError
        There is no such kind of source, or it refuses what stands behind the colon.
    """
    kind, colon, rest = text.partition(":")
    if kind not in SOURCES or not colon:
        kinds = ", ".join(f"{name}:…" for name in SOURCES)
        raise InputError(f"the source is {shown(text)}: give one of {kinds}")
    module, function = SOURCES[kind]
    opened: Any = getattr(import_module(module, __package__), function)
    source: Source = opened(rest, wanted)
    return source
