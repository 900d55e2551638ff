"""Whether the fields of a JSON file that a person may edit hold what they are read as: types, ranges, nothing more."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from ..data.json_types import is_number, is_whole
from ..errors import InputError, shown
from ..fields import ABSENT

LARGEST, MOST_LAYERS, LONGEST = 1 << 20, 64, 16
"""Whole numbers, numbers of layers and lengths of lists stay below these: a network's outline is made from them."""
_POSITIVE = ("eps", "scale_factor", "scaling_factor", "out_scale_factor", "mlp_ratio")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", dict: "an object"}


def refuse(path: Path, name: str, value: Any, expected: str, advice: str = "") -> NoReturn:
    """Raise :class:`InputError`: the file, the field, what it holds, what was expected, what to do."""
    held = "is missing" if value is ABSENT else f"is {shown(value)}"
    raise InputError(
        f"{path}: field {name!r} {held}, expected {expected}: {advice or 'correct it, or download the file again'}"
    )


@lru_cache
def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The type of each parameter that a function or class takes by name, as it is annotated."""
    hints = typing.get_type_hints(function)
    names = list(inspect.signature(function).parameters)
    return {name: hints[name] for name in names if name in hints and name != "return"}


def check_types(path: Path, config: Mapping[str, Any], hints: Mapping[str, Any], within: str = "") -> None:
    """Refuse the first field of `config` that is not of its type in `hints`, or far outside of any model's range.

    A switch that is null counts as false, as the libraries that write these files take it.
    """
    for name, hint in hints.items():
        value = config.get(name, ABSENT)
        if value is ABSENT or (value is None and hint is bool):
            continue
        if not _conforms(value, hint):
            refuse(path, within + name, value, describe(hint))
        _check_range(path, within + name, value, whole=float not in _leaves(hint))


def describe(hint: Any) -> str:
    """A type in words."""
    if hint is None or hint is type(None):
        return "null"
    if _is_union(hint):
        return " or ".join(dict.fromkeys(describe(kind) for kind in typing.get_args(hint)))
    origin = typing.get_origin(hint) or hint
    if origin in (tuple, list):
        inner = [kind for kind in typing.get_args(hint) if kind is not Ellipsis]
        return f"a list, each entry {describe(inner[0])}" if inner else "a list"
    return _WORDS.get(origin, getattr(origin, "__name__", str(origin)))


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _leaves(hint: Any) -> set[Any]:
    """The types that a hint is made of, such as int and NoneType of `int | tuple[int, ...] | None`."""
    inner = typing.get_args(hint)
    return set().union(*map(_leaves, inner)) if inner else {hint}


def _conforms(value: Any, hint: Any) -> bool:
    if _is_union(hint):
        return any(_conforms(value, kind) for kind in typing.get_args(hint))
    if hint is None or hint is type(None):
        return value is None
    origin = typing.get_origin(hint) or hint
    if origin in (tuple, list):
        inner = [kind for kind in typing.get_args(hint) if kind is not Ellipsis]
        # The libraries write tuple[int] for a list of any length.
        return isinstance(value, list) and bool(value) and all(_conforms(v, inner[0]) for v in value if inner)
    if origin is bool:
        return isinstance(value, bool)
    if origin is int:
        return is_whole(value)
    if origin is float:
        return is_number(value)
    return isinstance(value, origin) if isinstance(origin, type) else True


def _check_range(path: Path, name: str, value: Any, *, whole: bool) -> None:
    if isinstance(value, list):
        if len(value) > LONGEST:
            refuse(path, name, value, f"at most {LONGEST} entries")
        for entry in value:
            _check_range(path, name, entry, whole=whole)
    elif whole and is_number(value):
        most = MOST_LAYERS if "layers" in name.rpartition(".")[2] else LARGEST
        if not 0 <= value <= most:
            refuse(path, name, value, f"0 to {most}")
    elif is_number(value) and name.endswith(_POSITIVE) and not value > 0:
        refuse(path, name, value, "a number above 0")
