"""Which versions of the libraries numbers were computed with: they differ in the last digits between releases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..runtime.environment import same_version
from ..runtime.journal import Record

FEATURES = ("torch", "diffusers", "transformers", "open_clip_torch", "pillow")
"""What the features of pictures and captions are computed with."""
FIT = ("minddiffuser", "numpy", "scipy", "torch", "diffusers", "transformers", "open_clip_torch")


_THEN = ", then "


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs, in words: "torch 2.3.0 (here 2.4.1)"; empty when nothing does."""
    return ", ".join(
        f"{name} {before[name]} (here {now[name]})"
        for name in sorted(before.keys() & now.keys())
        if not same_version(before[name], now[name])
    )


def merged(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """The versions of work that was begun with some and goes on with others: "2.3.0, then 2.4.1"; each change once."""
    return {name: _then(before.get(name, "?"), here) for name, here in now.items()}


def of_all(records: Iterable[Record]) -> dict[str, str]:
    """The versions of the pieces of one work, each of which says its own as "libraries"; there is one."""
    found, *later = [record.content["libraries"] for record in sorted(records, key=lambda record: record.order)]
    for now in later:
        found = merged(found, now)
    return dict(found)


def _then(before: str, here: str) -> str:
    return before if same_version(before.rpartition(_THEN)[2], here) else f"{before}{_THEN}{here}"
