"""Docstrings as they are written for people who read code, made right for reStructuredText.

A star before a name, as in ``(n, *shape)``, and bars, as in ``|g|``, are what they look like; lines of names with what
they mean beside them, aligned, keep their alignment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

_CODE = re.compile(r"(``.*?``|`[^`]*`)")
_STAR = re.compile(r"(?<![\w*\\])\*(?=[A-Za-z_ ])")
_ALIGNED = re.compile(r"\S+(?: \S+)*\s{2,}\S")


def plain(line: str) -> str:
    """A line without markup that nobody meant; what stands between backquotes stays."""
    parts = _CODE.split(line)
    for number in range(0, len(parts), 2):
        parts[number] = _STAR.sub(r"\\*", parts[number].replace("|", r"\|"))
    return "".join(parts)


def readable(lines: Sequence[str]) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    return [
        made for blank, block in groupby(lines, lambda line: not line.strip()) for made in _block(blank, list(block))
    ]


def _block(blank: bool, lines: list[str]) -> Iterator[str]:
    if not blank and _is_aligned(lines):
        yield from ("::", "", *(f"    {line}" for line in lines))
    else:
        yield from (plain(line) for line in lines)


def _is_aligned(lines: Sequence[str]) -> bool:
    heads = [line for line in lines if not line.startswith(" ")]
    return len(lines) > 1 and bool(heads) and all(_ALIGNED.match(line) for line in heads) and "==" not in lines[0]


def setup(app: Any) -> dict[str, Any]:
    """Before the sections of a docstring are read."""

    def process(_app: Any, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
        lines[:] = readable(lines)

    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
