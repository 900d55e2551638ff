"""Docstrings as they are written for people who read code, made right for reStructuredText.

A star before a name, as in ``(n, *shape)``, and bars, as in ``|g|``, are what they look like; lines of names with what
they mean beside them, aligned, keep their alignment; and names that begin with dots are relative as imports are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

_CODE = re.compile(r"(``.*?``|`[^`]*`)")
_STAR = re.compile(r"(?<![\w*\\])\*(?=[A-Za-z_\s\"',)]|$)")
_RELATIVE = re.compile(r"(?P<role>:\w+:)`(?P<short>~?)(?P<dots>\.+)(?P<name>[\w.]+)`")
_ALIGNED = re.compile(r"\S+(?: \S+)*\s{2,}\S")


def plain(line: str) -> str:
    """A line without markup that nobody meant; what stands between backquotes stays."""
    parts = _CODE.split(line)
    for number in range(0, len(parts), 2):
        parts[number] = _STAR.sub(r"\\*", parts[number].replace("|", r"\|"))
    return "".join(parts)


def whole(line: str, package: str) -> str:
    """A line whose references have whole names, seen from a package."""

    def named(match: re.Match[str]) -> str:
        parents = package.split(".")
        above = parents[: len(parents) - len(match["dots"]) + 1]
        return f"{match['role']}`{match['short']}{'.'.join((*above, match['name']))}`"

    return _RELATIVE.sub(named, line)


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
    aligned = [line for line in heads if _ALIGNED.match(line)]
    # A name that is too long for its column stands in a line of its own.
    return (
        len(lines) > 1
        and bool(aligned)
        and all(line in aligned or " " not in line for line in heads)
        and "==" not in lines[0]
    )


def package_of(what: str, name: str, thing: Any) -> str:
    """The package in whose module something is documented; of a package that is itself."""
    module = name if what == "module" else str(getattr(thing, "__module__", None) or name)
    found = sys.modules.get(module)
    return module if hasattr(found, "__path__") else module.rpartition(".")[0]


def setup(app: Any) -> dict[str, Any]:
    """Before the sections of a docstring are read."""

    def process(_app: Any, what: str, name: str, thing: Any, _options: Any, lines: list[str]) -> None:
        lines[:] = [whole(line, package_of(what, name, thing)) for line in readable(lines)]

    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
