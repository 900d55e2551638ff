"""Which versions of the libraries numbers were computed with: they differ in the last digits between releases."""

from __future__ import annotations

from collections.abc import Mapping

from ..runtime.environment import same_version

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


def _then(before: str, here: str) -> str:
    return before if same_version(before.rpartition(_THEN)[2], here) else f"{before}{_THEN}{here}"
