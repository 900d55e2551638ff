"""The parameters of a step, read from JSON; each wrong one is named with its step."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..data.json_types import is_number, is_whole
from ..data.layout import Channel
from ..errors import InputError, shown

NAMED = 6


def check_names(step: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a parameter that the step does not have: a misspelt one would be passed over in silence."""
    extra = sorted(set(step) - set(known) - {"name"})
    if extra:
        names = ", ".join(sorted(known))
        raise InputError(f"the step {step['name']!r} has the parameter {shown(extra[0])}: it knows {names}")


def number(step: Mapping[str, Any], name: str, wanted: str, *, above: float = -math.inf) -> float:
    """A finite number above `above`; `wanted` ends the message."""
    value = step.get(name)
    if not is_number(value) or value <= above:
        raise wrong(step, name, wanted)
    return float(value)


def number_or_null(step: Mapping[str, Any], name: str, wanted: str) -> float | None:
    """A finite number, or None where it is null or not given."""
    return None if step.get(name) is None else number(step, name, wanted)


def whole(step: Mapping[str, Any], name: str, wanted: str, *, least: int) -> int:
    """A whole number of at least `least`."""
    value = step.get(name)
    if not is_whole(value) or value < least:
        raise wrong(step, name, wanted)
    return value


def flag(step: Mapping[str, Any], name: str) -> bool:
    """True or false, which has to be given."""
    value = step.get(name)
    if not isinstance(value, bool):
        raise wrong(step, name, "give true or false")
    return value


def rows_of(step: Mapping[str, Any], channels: Sequence[Channel]) -> list[int]:
    """Where the channels that the step names stand among `channels`."""
    names = step.get("channels")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise wrong(step, "channels", "give a list of channel names")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the step {step['name']!r} names channel {shown(twice)} twice: give each once")
    places = {channel.name: row for row, channel in enumerate(channels)}
    missing = [name for name in names if name not in places]
    if missing:
        raise InputError(
            f"the step {step['name']!r} needs {listed(missing)}, and the signal has {listed(places)}: record these "
            "channels under the names that they had in training"
        )
    return [places[name] for name in names]


def wrong(step: Mapping[str, Any], name: str, wanted: str) -> InputError:
    return InputError(f"{name} of the step {step['name']!r} is {shown(step.get(name))}: {wanted}")


def listed(names: Collection[str]) -> str:
    """The first names, and how many more there are."""
    first = ", ".join(shown(name) for name in list(names)[:NAMED])
    return first + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
