"""Recordings of the Lab Streaming Layer: XDF files, as LabRecorder and md-stream write them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.layout import CHANNEL_TYPES, Channel
from ....runtime.errors import FileError, InputError, MissingExtra
from ....runtime.signal.stamps import stretches
from ....runtime.signal.units import unit_size
from .source import NOWHERE, Recording

SUFFIXES = (".xdf", ".xdfz", ".xdf.gz")
# The description and the signal of a session of md-stream.
SESSION = ("session.json", "signal.xdf")
_SIGNALS = ("eeg", "meg")
# How far the rate that was measured may be from the one that the stream states.
_MOST_OFF = 0.01
# A marker further than this many samples from the nearest one lies in a gap.
_NEAR = 1.5


def open_xdf(path: Path, *, stream: str | None, unit: float | None) -> Recording:
    """Open the EEG or MEG stream of an XDF file, with the markers of its other streams.

    Clock offsets are applied by pyxdf; jitter is removed per stretch without a gap; a marker counts at the nearest
    sample in time. A signal that a session of md-stream describes twice, as it came back with the same channels, is
    one.

    Parameters
    ----------
    path
        The file.
    stream
        The stream's name; None where it is the only one of type EEG or MEG.
    unit
        Size of the numbers' unit in V or T; None for the one that each channel declares.

    Raises
    ------
    FileError
        It is damaged, or the stream has no samples, no unit that is known, or another rate than it states.
    InputError
        There is no such stream, or there are several.
    """
    changed = path.stat().st_mtime_ns if path.exists() else 0
    streams = _load(path)
    chosen = _chosen(streams, stream, path)
    info, raw = chosen["info"], np.asarray(chosen["time_stamps"], float)
    sfreq = float(info["nominal_srate"][0])
    name = info["name"][0]
    if len(raw) < 2:
        raise FileError(f"the stream {name!r} of {path} has {len(raw)} samples: choose another one with --stream")
    found = stretches(raw, sfreq) if sfreq > 0 else None
    if found is None or abs(found.sfreq / sfreq - 1) > _MOST_OFF:
        measured = sfreq if found is None else found.sfreq
        raise FileError(
            f"the stream {name!r} of {path} states {sfreq:g} Hz and has {measured:.6g} samples a second: samples were "
            "lost or the rate is wrong, record it again"
        )
    stamps = found.times
    channels, sizes = _channels(info, unit, path)

    def at(seconds: float) -> int:
        return _nearest(stamps, stamps[0] + seconds, sfreq)

    def read(wanted: Sequence[int], start: int, stop: int) -> NDArray[np.float64]:
        part: NDArray[np.float64] = _samples(path, stream, changed)[start:stop, list(wanted)].T.astype(np.float64)
        part *= np.array([sizes[row] for row in wanted])[:, None]
        return part

    return Recording(
        name=path.absolute().parent.name if is_session(path.parent) else re.sub(r"(?i)\.xdf(z|\.gz)?$", "", path.name),
        path=path,
        files=(path,),
        channels=channels,
        bad=frozenset(),
        sfreq=sfreq,
        segments=found.segments,
        marks=tuple(sorted(_marks(streams, chosen, stamps, sfreq))),
        spoilt=(),
        at=at,
        read=read,
    )


def is_xdf(path: Path) -> bool:
    """Whether a file has the ending of an XDF file."""
    return path.name.lower().endswith(SUFFIXES)


def is_session(folder: Path) -> bool:
    """Whether a folder is a session that md-stream recorded."""
    return (folder / SESSION[0]).is_file() and (folder / SESSION[1]).is_file()


def _load(path: Path) -> list[Any]:
    try:
        import pyxdf
    except ModuleNotFoundError as error:
        raise MissingExtra(f"reading {path.name} needs {error.name}: pip install 'minddiffuser[data]'") from error
    try:
        streams, _header = pyxdf.load_xdf(str(path), dejitter_timestamps=False, verbose=False)
    except Exception as error:  # pyxdf raises what its parsing of a damaged file happens to raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"{path} cannot be read as XDF ({reason:.120}): it is damaged, copy it again") from error
    return list(streams)


@lru_cache(maxsize=1)
def _samples(path: Path, stream: str | None, changed: int) -> NDArray[Any]:
    """(n, n_channels) of a stream, kept until another file is read: it is asked for in chunks, and loaded whole.

    `changed`, when the file last was, tells it from another one that has taken its place.
    """
    return np.asarray(_chosen(_load(path), stream, path)["time_series"])


def _chosen(streams: Sequence[Any], name: str | None, path: Path) -> Any:
    numeric = [one for one in streams if one["info"]["channel_format"][0] != "string"]
    regular = [one for one in numeric if float(one["info"]["nominal_srate"][0]) > 0]
    if name is None:
        fitting = [one for one in regular if one["info"]["type"][0].lower() in _SIGNALS]
    else:
        fitting = [one for one in regular if one["info"]["name"][0] == name]
    ours = [one for one in fitting if _role(one["info"]) == "signal" and len(one["time_stamps"])]
    if len(ours) > 1 and all(_same(one, ours[0]) for one in ours):
        return _joined(ours)
    if len(ours) > 1:
        raise FileError(
            f"{path} describes its signal in two ways: it came back with other channels, units or another rate during "
            "the session; export each part with md-stream export"
        )
    if len(fitting) != 1:
        there = ", ".join(f"{one['info']['name'][0]!r} ({one['info']['type'][0]})" for one in regular) or "none"
        what = "streams of type EEG or MEG" if name is None else f"streams named {name!r}"
        raise InputError(
            f"{path} has {len(fitting)} {what}; its streams with a rate are {there}: name one with --stream"
        )
    return fitting[0]


def _same(one: Any, other: Any) -> bool:
    """Whether two streams of a session have the same channels, units and rate."""
    a, b = one["info"], other["info"]
    return a["nominal_srate"] == b["nominal_srate"] and list(_described(a)) == list(_described(b))


def _joined(streams: Sequence[Any]) -> Any:
    """One stream of several that followed each other."""
    return {
        **streams[0],
        "time_stamps": np.concatenate([one["time_stamps"] for one in streams]),
        "time_series": np.concatenate([one["time_series"] for one in streams]),
    }


def _channels(info: Mapping[str, Any], unit: float | None, path: Path) -> tuple[tuple[Channel, ...], list[float]]:
    """Each channel and the size of its unit."""
    n_channels, kind = int(info["channel_count"][0]), info["type"][0].lower()
    listed = _described(info)
    if len(listed) not in (0, n_channels):
        raise FileError(
            f"{path} describes {len(listed)} channels of {info['name'][0]!r}, which has {n_channels}: it is damaged"
        )
    channels, sizes = [], []
    for row in range(n_channels):
        about = listed[row] if listed else {}
        label = _text(about, "label") or f"{kind.upper()}{row + 1:03d}"
        stated = _text(about, "type").lower()
        known = stated if stated in CHANNEL_TYPES else "misc" if stated not in ("", "meg") else ""
        channel = Channel(name=label, type=known or ("mag" if kind == "meg" else "eeg"))
        size = unit if unit is not None else unit_size(_text(about, "unit"))
        if size is None and channel.type != "misc":
            found = f"the unit {_text(about, 'unit')!r}, which is unknown" if _text(about, "unit") else "no unit"
            raise FileError(f"channel {label} of {path} declares {found}: say it with --unit, such as --unit uV")
        channels.append(channel)
        sizes.append(1.0 if size is None or channel.type == "misc" else size)
    return tuple(channels), sizes


def _described(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The channels of the stream's description, by the convention of LSL: desc/channels/channel."""
    node: Any = info.get("desc") or [None]
    for name in ("channels", "channel"):
        node = (node[0] or {}).get(name) or [None]
    return [one for one in node if one]


def _role(info: Mapping[str, Any]) -> str:
    """What a stream is in a session of md-stream, or ""."""
    node: Any = (info.get("desc") or [None])[0] or {}
    return _text((node.get("minddiffuser") or [None])[0] or {}, "role")


def _text(about: Mapping[str, Any], name: str) -> str:
    values = about.get(name) or [""]
    return str(values[0] or "").strip()


def _marks(streams: Sequence[Any], chosen: Any, stamps: NDArray[np.float64], sfreq: float) -> list[tuple[int, str]]:
    """The markers of every stream of texts, and of those of one number without a rate."""
    found = []
    for one in streams:
        info = one["info"]
        texts = info["channel_format"][0] == "string"
        numbers = float(info["nominal_srate"][0]) == 0 and int(info["channel_count"][0]) == 1
        if one is chosen or not (texts or numbers) or _role(info) not in ("", "markers"):
            continue
        for stamp, values in zip(one["time_stamps"], one["time_series"], strict=True):
            value = values[0]
            text = str(value) if texts else f"{float(value):g}"
            found.append((_nearest(stamps, float(stamp), sfreq), text.strip()))
    return found


def _nearest(stamps: NDArray[np.float64], time: float, sfreq: float) -> int:
    after = int(np.searchsorted(stamps, time))
    near = min((k for k in (after - 1, after) if 0 <= k < len(stamps)), key=lambda k: abs(stamps[k] - time))
    return near if abs(stamps[near] - time) * sfreq <= _NEAR else NOWHERE
