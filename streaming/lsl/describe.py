"""A stream's own description, in our words: channels, units, positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...runtime.data.layout import CHANNEL_TYPES, Channel
from ..records import DTYPES, SignalInfo
from .found import Found

_LONGEST = 100
# By the stream's type, where a channel states none.
_TYPES = {"eeg": "eeg", "meg": "mag"}
_METRES = {"m": 1.0, "meters": 1.0, "metres": 1.0, "millimeters": 1e-3, "mm": 1e-3, "cm": 1e-2, "centimeters": 1e-2}


def signal_info(found: Found, full: Any, modality: str) -> SignalInfo:
    """What the stream says of its channels, by LSL's convention (desc/channels/channel: label, type, unit, location).

    Parameters
    ----------
    full
        pylsl's StreamInfo with the description; what it leaves out is filled: names from the type and the row, types
        from the stream's type or else `modality`.
    """
    described = list(_children(full.desc().child("channels"), "channel"))[: found.n_channels]
    described += [None] * (found.n_channels - len(described))
    default = _TYPES.get(found.type.lower(), _TYPES[modality])
    channels = tuple(_channel(about, row, default) for row, about in enumerate(described))
    units = tuple("" if about is None else about.child_value("unit")[:_LONGEST].strip() for about in described)
    return SignalInfo(
        name=found.name,
        channels=channels,
        sfreq=found.sfreq,
        units=units,
        source_id=found.source_id,
        uid=found.uid,
        hostname=found.hostname,
        dtype=DTYPES.get(found.format, "float64"),
    )


def labels(full: Any, n_channels: int) -> tuple[str, ...]:
    """The channels' labels, "" where there is none."""
    found = [about.child_value("label") for about in _children(full.desc().child("channels"), "channel")]
    return tuple((*found[:n_channels], *[""] * (n_channels - len(found))))


def plain(text: str, most: int = _LONGEST) -> str:
    """A hostile text as one printable line of at most `most` characters."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:most]).strip()


def _children(parent: Any, name: str) -> Iterator[Any]:
    child = parent.child(name)
    while not child.empty():
        yield child
        child = child.next_sibling(name)


def _channel(about: Any, row: int, default: str) -> Channel:
    stated = "" if about is None else about.child_value("type").strip().lower()
    kind = stated if stated in CHANNEL_TYPES else _TYPES.get(stated, "misc" if stated else default)
    name = "" if about is None else plain(about.child_value("label"))
    return Channel(
        name=name or f"{kind.upper()}{row + 1:03d}", type=kind, position=None if about is None else _position(about)
    )


def _position(about: Any) -> tuple[float, float, float] | None:
    """In metres; LSL's convention is millimetres where nothing else is said."""
    place = about.child("location")
    if place.empty():
        return None
    size = _METRES.get(place.child_value("unit").strip().lower(), 1e-3)
    try:
        x, y, z = (float(place.child_value(axis)) * size for axis in "XYZ")
    except ValueError:
        return None
    # NaN, and a head larger than a metre, are no positions.
    return (x, y, z) if all(abs(value) < 1.0 for value in (x, y, z)) else None
