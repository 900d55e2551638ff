"""The streams of a session's XDF file: what each is called, what its samples mean, how it is described.

Besides the signal and its markers, as any recorder writes them, two streams of ours say how they came. `arrivals`
has one row for each step of the session and for each thing that it brought, in their order; a row is (what, stream,
count, uncertainty) at a local time. `notices` has what happened to the source, as JSON. With both, the very items that
the session was given can be given again (:mod:`.items`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...runtime.data.layout import Channel
from ...runtime.errors import FileError, InputError, shown
from ..records import SignalInfo

MARKERS, ARRIVALS, NOTICES, FIRST_SIGNAL = 1, 2, 3, 4
"""Numbers of the streams in a file. A signal that comes back with another description is one more stream."""

STEP, SAMPLES, MARKER, OFFSET_OF_SIGNAL, OFFSET_OF_MARKERS, NOTICE, END = range(7)
"""What a row of `arrivals` is: a step of the session (its time is that of the step), or an item of the step before it:
`count` samples of `stream`; the marker whose ordinal is `count`; a clock offset with its uncertainty; a notice. END is
the last one, of a session that was closed in order."""

COLUMNS = ("what", "stream", "count", "uncertainty")
_FORMATS = {"float32": "float32", "float64": "double64", "int8": "int8", "int16": "int16", "int32": "int32"}
_OURS = "minddiffuser"


def xdf_format(dtype: str) -> str:
    """XDF's name of a number type; double64 for one that it does not have."""
    return _FORMATS.get(dtype, "double64")


def signal_tree(info: SignalInfo, channel_format: str) -> dict[str, Any]:
    """The description of a signal, with labels, types, units and positions as LSL's convention has them."""
    meg = any(channel.type in ("mag", "grad", "ref_meg") for channel in info.channels)
    listed = [
        {"label": channel.name, "type": channel.type.upper(), "unit": unit, **_location(channel)}
        for channel, unit in zip(info.channels, info.units, strict=True)
    ]
    return {
        "name": info.name or "unnamed",  # pyxdf fails on a stream without a name
        "type": "MEG" if meg else "EEG",
        "channel_count": len(info.channels),
        "nominal_srate": repr(float(info.sfreq)),
        "channel_format": channel_format,
        "source_id": info.source_id,
        "uid": info.uid,
        "hostname": info.hostname,
        "desc": {"channels": {"channel": listed}, **_role("signal", info=json.dumps(info_json(info)))},
    }


def same_signal(one: SignalInfo, other: SignalInfo) -> bool:
    """Whether samples of both can stand in one stream: same channels, rate, units and numbers."""
    return (one.channels, one.sfreq, one.units, one.dtype) == (other.channels, other.sfreq, other.units, other.dtype)


def markers_tree(info: SignalInfo) -> dict[str, Any]:
    return _irregular("Markers", "Markers", "string", ("marker",), _role("markers"), hostname=info.hostname)


def arrivals_tree() -> dict[str, Any]:
    return _irregular("md-stream arrivals", "Arrivals", "double64", COLUMNS, _role("arrivals"))


def notices_tree() -> dict[str, Any]:
    return _irregular("md-stream notices", "Notices", "string", ("notice",), _role("notices"))


def info_json(info: SignalInfo) -> dict[str, Any]:
    """A signal's description as JSON."""
    return {
        "name": info.name,
        "channels": [channel.as_json() for channel in info.channels],
        "sfreq": info.sfreq,
        "units": list(info.units),
        "source_id": info.source_id,
        "uid": info.uid,
        "hostname": info.hostname,
        "dtype": info.dtype,
    }


def info_from_json(content: Any, where: str) -> SignalInfo:
    """Read what :func:`info_json` gives.

    Raises
    ------
    FileError
        It is something else.
    """
    try:
        channels = tuple(
            Channel(name=one["name"], type=one["type"], position=one.get("position")) for one in content["channels"]
        )
        texts = {name: str(content[name]) for name in ("name", "source_id", "uid", "hostname", "dtype")}
        units = tuple(map(str, content["units"]))
        info = SignalInfo(channels=channels, sfreq=float(content["sfreq"]), units=units, **texts)
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise FileError(
            f"{where} describes its signal as {shown(content)} ({shown(error)}): it is no session of this release"
        ) from None
    if len(info.units) != len(info.channels):
        raise FileError(f"{where} has {len(info.units)} units for {len(info.channels)} channels: it is damaged")
    return info


def _role(role: str, **more: str) -> dict[str, Any]:
    return {_OURS: {"role": role, **more}}


def _irregular(
    name: str, kind: str, channel_format: str, columns: tuple[str, ...], role: Mapping[str, Any], *, hostname: str = ""
) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "channel_count": len(columns),
        "nominal_srate": 0,
        "channel_format": channel_format,
        "source_id": f"{_OURS}-{kind.lower()}",
        "uid": "",
        "hostname": hostname,
        "desc": {"channels": {"channel": [{"label": column} for column in columns]}, **role},
    }


def _location(channel: Channel) -> dict[str, Any]:
    """In millimetres, as LSL's convention has it."""
    if channel.position is None:
        return {}
    return {"location": {axis: repr(1000 * value) for axis, value in zip("XYZ", channel.position, strict=True)}}
