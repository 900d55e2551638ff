"""The label of a checkpoint that was fitted with a leak on purpose, which everything made from it carries on.

A leak lets something of the test trials into a fit; ``md-train fit --allow-leak`` runs one to show what it adds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .fields import ABSENT, Field

FIELD = "leaks"
_NAME = re.compile(r"[a-z][a-z-]{0,39}")
_MOST = 8


def read_leaks(field: Field) -> tuple[str, ...]:
    """The names in a description's field `leaks`; none where it is absent.

    Raises
    ------
    FileError
        It holds anything else than names.
    """
    if field.value is ABSENT:
        return ()
    return tuple(item.match(_NAME, "a leak's name") for item in field.items(1, _MOST, "leaks"))


def labelled(leaks: Sequence[str]) -> dict[str, list[str]]:
    """The field as other files carry it on; empty where there is no leak."""
    return {FIELD: list(leaks)} if leaks else {}


def leaks_line(leaks: Sequence[str]) -> str:
    """What a person must know of results of such a checkpoint, without a full stop."""
    which = f"the leak {leaks[0]}" if len(leaks) == 1 else f"the leaks {', '.join(leaks)}"
    return (
        f"these decoders were fitted with {which} on purpose (md-train fit --allow-leak): what is measured with them "
        "is no evidence of decoding"
    )
