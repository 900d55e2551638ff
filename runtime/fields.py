"""Fields of a JSON file that a person, or a stranger, may have written: each is what it has to be, or is refused."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .data.json_types import is_number
from .errors import FileError, shown

ABSENT = object()
SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_SIZE = (1 << 31) - 1


@dataclass(frozen=True)
class Field:
    """A value of a JSON file, where it stands, and what to do where it cannot be used.

    Every method gives the value as what it is named after, or raises :class:`FileError`.
    """

    path: Path
    name: str
    value: Any
    advice: str

    def refuse(self, expected: str) -> NoReturn:
        got = "missing" if self.value is ABSENT else shown(self.value)
        raise FileError(f"{self.path}: field {self.name!r} is {got}, expected {expected}: {self.advice}")

    def object(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            self.refuse("an object")
        content: dict[str, Any] = self.value
        return content

    def get(self, key: str) -> Field:
        return self._inner(f"{self.name}.{key}" if self.name else key, self.object().get(key, ABSENT))

    def members(self, pattern: re.Pattern[str], most: int, what: str) -> dict[str, Field]:
        content = self.object()
        if len(content) > most:
            self.refuse(f"at most {most} {what}")
        for key in content:
            if not pattern.fullmatch(key):
                self._inner(self.name, key).refuse(what)
        return {key: self.get(key) for key in content}

    def items(self, least: int, most: int, what: str) -> list[Field]:
        if not isinstance(self.value, list) or not least <= len(self.value) <= most:
            self.refuse(f"a list of {least if least == most else f'{least} to {most}'} {what}")
        return [self._inner(f"{self.name}[{i}]", item) for i, item in enumerate(self.value)]

    def whole(self, least: int = 1, most: int = _LARGEST_SIZE) -> int:
        value = self.value
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self.refuse(f"a whole number from {least} to {most}")
        return value

    def number(self) -> float:
        if not is_number(self.value):
            self.refuse("a number")
        return float(self.value)

    def wholes(self, least: int, most: int) -> tuple[int, ...]:
        return tuple(item.whole() for item in self.items(least, most, "whole numbers"))

    def text(self) -> str:
        # Names end up on terminals: no control characters, no half of a character.
        value = self.value
        if not isinstance(value, str) or not 0 < len(value) <= 200 or not value.isprintable():
            self.refuse("a text of 1 to 200 printable characters")
        return value

    def match(self, pattern: re.Pattern[str], expected: str) -> str:
        if not isinstance(self.value, str) or not pattern.fullmatch(self.value):
            self.refuse(expected)
        value: str = self.value
        return value

    def sha256(self) -> str:
        return self.match(SHA256, "a SHA-256 of 64 hexadecimal digits")

    def choice(self, allowed: Collection[str]) -> str:
        if not isinstance(self.value, str) or self.value not in allowed:
            self.refuse(f"one of {', '.join(sorted(allowed))}")
        return self.value

    def _inner(self, name: str, value: Any) -> Field:
        return Field(self.path, name, value, self.advice)
