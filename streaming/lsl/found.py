"""Streams on the network: who is there, and which one is meant."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.errors import InputError, shown
from .address import NO_MARKERS, Address
from .library import pylsl_library

STRING = "string"
# After the first sign of what is wanted, how long to look for a second one, in seconds.
SETTLE = 1.5
_LOOK = 0.05
# What pylsl makes up for an outlet without one: a hash that differs in each process.
_MADE_UP = re.compile(r"-?\d{15,}")
_MOST_LISTED = 12


@dataclass(frozen=True, kw_only=True)
class Found:
    """A stream as it announces itself: texts are as they came; `handle` is pylsl's, without the channels."""

    name: str
    type: str
    n_channels: int
    sfreq: float
    format: str
    source_id: str
    uid: str
    hostname: str
    session_id: str
    created_at: float
    handle: Any

    @property
    def is_signal(self) -> bool:
        """Whether it has numbers at a regular rate."""
        return self.sfreq > 0 and self.format != STRING

    @property
    def is_markers(self) -> bool:
        """Whether it has texts or numbers that come when they come."""
        return self.sfreq == 0

    def __str__(self) -> str:
        rate = f"{self.sfreq:g} Hz" if self.sfreq > 0 else "irregular"
        ids = f"source_id {shown(self.source_id)}" if self.source_id else "no source_id"
        return (
            f"{shown(self.name)} (type {shown(self.type)}, {self.n_channels} x {self.format}, {rate}, {ids}, "
            f"host {shown(self.hostname)}, uid {shown(self.uid)})"
        )


def describe(handle: Any) -> Found:
    """What pylsl's StreamInfo says."""
    formats = pylsl_library().lib.fmt2string
    return Found(
        name=handle.name(),
        type=handle.type(),
        n_channels=int(handle.channel_count()),
        sfreq=float(handle.nominal_srate()),
        format=formats[handle.channel_format()],
        source_id=handle.source_id(),
        uid=handle.uid(),
        hostname=handle.hostname(),
        session_id=handle.session_id(),
        created_at=float(handle.created_at()),
        handle=handle,
    )


class Resolver:
    """The streams that are there at each moment, kept up to date in the background."""

    def __init__(self) -> None:
        self._resolver = pylsl_library().ContinuousResolver()

    def streams(self) -> list[Found]:
        """Those that answered within the last seconds, each once, oldest first."""
        found = {one.uid: one for one in map(describe, self._resolver.results())}
        return sorted(found.values(), key=lambda one: (one.name, one.created_at, one.uid))


def look(
    enough: Callable[[Sequence[Found]], bool],
    timeout: float,
    settle: float,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Found]:
    """Look until there is enough, then `settle` seconds more for a double; at most `timeout` seconds altogether.

    It ends at once where `stopped`, which is asked again and again, says so.
    """
    resolver = Resolver()
    end = time.monotonic() + timeout
    until = end
    while time.monotonic() < until and not stopped():
        if until == end and enough(resolver.streams()):
            until = min(end, time.monotonic() + settle)
        time.sleep(_LOOK)
    return resolver.streams()


def signals(streams: Sequence[Found], address: Address, modality: str) -> list[Found]:
    """Those that fit what was asked for; by default the ones of the modality's type."""
    wanted = {"name": address.name, "type": address.type, "source_id": address.id}
    wanted |= {"hostname": address.host, "uid": address.uid}
    fitting = [one for one in streams if one.is_signal]
    if not address.any and not any(wanted.values()):
        return [one for one in fitting if one.type.lower() == modality]
    return [
        one
        for one in fitting
        if all(not text or getattr(one, field) == text for field, text in wanted.items())
        and (not address.any or address.any in (one.name, one.type, one.source_id))
    ]


def marker_streams(streams: Sequence[Found], address: Address) -> list[Found]:
    """As :func:`signals`, of the markers; by default the ones of type Markers. Empty where none is wanted."""
    if address.stim or address.markers == NO_MARKERS:
        return []
    fitting = [one for one in streams if one.is_markers]
    if not address.markers:
        return [one for one in fitting if one.type.lower() == "markers"]
    return [one for one in fitting if address.markers in (one.name, one.type, one.source_id)]


def find(
    address: Address, modality: str, timeout: float, stopped: Callable[[], bool] = lambda: False
) -> tuple[Found, Found | None]:
    """The signal and its markers; `stopped` ends the search, see :func:`look`.

    Raises
    ------
    InputError
        One of them is not there, or there are several: the message lists what was found.
    """
    markers = not address.stim and address.markers != NO_MARKERS

    def enough(streams: Sequence[Found]) -> bool:
        return bool(signals(streams, address, modality)) and (not markers or bool(marker_streams(streams, address)))

    streams = look(enough, timeout, SETTLE, stopped)
    signal = _one(
        signals(streams, address, modality), streams, f"streams with a rate that fit {asked(address, modality)}", "uid"
    )
    if not markers:
        return signal, None
    named = f"named {shown(address.markers)}" if address.markers else "of type Markers"
    return signal, _one(marker_streams(streams, address), streams, f"marker streams {named}", "markers")


def asked(address: Address, modality: str) -> str:
    """What was asked for, for people."""
    keys = ("name", "type", "id", "host", "uid")
    given = [f"{key}={getattr(address, key)}" for key in keys if getattr(address, key)]
    if address.any:
        given.insert(0, f"the name, type or source_id {shown(address.any)}")
    return ", ".join(given) or f"type={modality.upper()}"


def _one(fitting: Sequence[Found], streams: Sequence[Found], what: str, key: str) -> Found:
    if len(fitting) == 1:
        return fitting[0]
    there = fitting or streams
    listed = "; ".join(map(str, there[:_MOST_LISTED])) + ("; …" if len(there) > _MOST_LISTED else "")
    if fitting:
        raise InputError(f"there are {len(fitting)} {what}: {listed}: choose one, such as {_choice(fitting, key)}")
    if not streams:
        raise InputError(f"there are no {what}, and no others: start the amplifier's program, or run md-stream doctor")
    how = "" if key == "uid" else ", stim=CHANNEL for a stimulus channel, or markers=none"
    raise InputError(f"there are no {what}; these are there: {listed}: give what fits one of them{how}")


def _choice(fitting: Sequence[Found], key: str) -> str:
    """How the first of them could be asked for."""
    first = fitting[0]
    for field, option in (("name", "name"), ("source_id", "id"), ("hostname", "host")):
        value = getattr(first, field)
        if value and sum(getattr(one, field) == value for one in fitting) == 1:
            return f"{key if key == 'markers' and field != 'hostname' else option}={value}"
    return f"uid={first.uid}" if key == "uid" else "another name for each"


def weakness(found: Found) -> str:
    """What keeps it from being found again after its program was restarted; "" where nothing does."""
    if not found.source_id:
        return (
            f"the stream {shown(found.name)} has no source_id: after a restart of its program it is known again by "
            "its name, type, channels and host alone; set one in the sender"
        )
    if _MADE_UP.fullmatch(found.source_id):
        return (
            f"the source_id {shown(found.source_id)} of the stream {shown(found.name)} looks like one that pylsl makes "
            "up at each start: after a restart of its program it may not be known again; set one in the sender"
        )
    return ""


def is_successor(found: Found, lost: Found) -> bool:
    """Whether a stream may be the one that was lost, after a restart of its program; its rate may be another."""
    if lost.source_id and not _MADE_UP.fullmatch(lost.source_id):
        return found.source_id == lost.source_id and found.is_signal == lost.is_signal
    fields = ("name", "type", "n_channels", "format", "hostname")
    return all(getattr(found, field) == getattr(lost, field) for field in fields)
