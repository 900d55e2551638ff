"""JSON's own types: what a value is, and numpy's numbers and arrays, paths and dates converted to them."""

from __future__ import annotations

import datetime
import math
import re
import sys
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, TypeGuard

import numpy as np

from ..errors import InputError

# Python writes JSON by recursion; nobody nests notes deeper.
_DEEPEST = 50
_MOST_BITS = 1024
_LONGEST_LABEL = 100
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def is_text(value: object) -> TypeGuard[str]:
    """Whether it is a string that says something and that UTF-8 can hold."""
    return isinstance(value, str) and bool(value.strip()) and not _SURROGATE.search(value)


def is_line(value: object) -> TypeGuard[str]:
    """Whether it is such a text, of one line and without NUL, as names of files are."""
    return is_text(value) and len(value.splitlines()) == 1 and "\0" not in value


def is_label(value: object) -> TypeGuard[str]:
    """Whether it is a name that can be printed as it is: one line of at most 100 signs, no control characters."""
    return is_text(value) and value.isprintable() and len(value) <= _LONGEST_LABEL


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is a whole number, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # False for NaN


def number_or_none(value: object) -> float | None:
    """A finite float, or None for anything else that a JSON file may hold."""
    return float(value) if is_number(value) else None


def plain_json(value: Any, name: str, *, _depth: int = 0) -> Any:
    """Convert to dict, list, str, int, float, bool and None.

    Parameters
    ----------
    value
        Of those types; or with numpy scalars and arrays, tuples, paths, dates and times.
    name
        Of the value, for messages; what is wrong is named by its keys ("provenance.scanner.tr").

    Raises
    ------
    InputError
        A value that JSON cannot hold: NaN or infinity, another type, text that is not Unicode, deeper than 50 levels.
    """
    if _depth > _DEEPEST:
        raise InputError(f"{name:.60}… is nested deeper than {_DEEPEST} levels: flatten it")
    if isinstance(value, Mapping):
        content = {_key(key, name): plain_json(v, f"{name}.{key}", _depth=_depth + 1) for key, v in value.items()}
        if len(content) != len(value):
            raise InputError(f"{name} has keys that are the same as text, such as 1 and '1': give each once")
        return content
    if isinstance(value, list | tuple):
        return [plain_json(item, f"{name}[{index}]", _depth=_depth + 1) for index, item in enumerate(value)]
    if isinstance(value, np.ndarray) and value.dtype != object:
        return plain_json(value.tolist(), name, _depth=_depth)
    return _single(value.item() if isinstance(value, np.generic) else value, name)


def _single(value: Any, name: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > _MOST_BITS:
            raise InputError(f"{name} is a whole number of {value.bit_length()} bits: give it as text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{name} is {value}, which JSON cannot hold: give None or leave it out")
        return float(value)
    if isinstance(value, PurePath):
        value = str(value)
    elif isinstance(value, datetime.date | datetime.time):
        value = value.isoformat()
    if not isinstance(value, str):
        raise InputError(f"{name} is a {type(value).__name__}, which JSON cannot hold: give text, numbers or lists")
    return _unicode(str(value), name)


def _key(key: Any, name: str) -> str:
    if isinstance(key, np.generic):
        key = key.item()
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise InputError(f"{name} has the key {key!r:.40}: give text as keys")
    return _unicode(str(key), f"a key of {name}")


def _unicode(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} is {ascii(text):.60}, which is not Unicode: give it in UTF-8") from None
    return text
