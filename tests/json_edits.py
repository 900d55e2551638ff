"""Every single edit that a person could make to a JSON file, for tests of what then happens."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

_REMOVED = object()
_EDITS = (None, "x", -1, [], 0.5, {}, _REMOVED)


def single_edits(content: Any, n: int, seed: int = 8) -> Iterator[tuple[str, Any]]:
    """`n` of the documents that differ from `content` in one field, drawn without repetition, with what was edited."""
    cases = [(place, edit) for place in _fields(content) for edit in _EDITS]
    assert len(cases) >= n
    for place, edit in random.Random(seed).sample(cases, n):
        yield f"{place}: {'removed' if edit is _REMOVED else edit}", _edited(content, place, edit)


def _fields(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document but its root."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [found for key, value in items for found in ((*path, key), *_fields(value, (*path, key)))]


def _edited(content: Any, path: tuple[Any, ...], edit: object) -> Any:
    content = json.loads(json.dumps(content))
    place = content
    for key in path[:-1]:
        place = place[key]
    if edit is _REMOVED:
        del place[path[-1]]
    else:
        place[path[-1]] = edit
    return content
