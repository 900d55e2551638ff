"""XDF files of any recorder: raw stamps and clock offsets as they were, nothing synchronised or smoothed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import CHANNEL_TYPES, Channel
from ...runtime.errors import FileError, InputError, shown
from ..records import DTYPES, MARKERS, SIGNAL, ClockOffset, SignalInfo
from .recorded import Choice, Recorded

SUFFIXES = (".xdf", ".xdfz", ".xdf.gz")
_UNCERTAIN = (
    "XDF keeps clock offsets without their uncertainty: it counts as 0, and no epoch is refused for it, as one may be "
    "in a live session"
)
_NO_CLOCK = (
    "the file has no clock offsets: the stamps of signal and markers count as of one clock, without any uncertainty"
)
# Streams of our own sessions that say how the others came.
_NOT_MARKERS = ("arrivals", "notices")


def is_xdf(path: Path) -> bool:
    """Whether a file has the ending of an XDF file."""
    return path.name.lower().endswith(SUFFIXES)


def open_xdf(path: Path, choice: Choice) -> Recorded:
    """Open one signal of an XDF file and one stream of markers.

    Raises
    ------
    FileError
        It is damaged.
    InputError
        No stream fits, or several do.
    """
    import pyxdf

    try:
        streams, _ = pyxdf.load_xdf(
            str(path), synchronize_clocks=False, handle_clock_resets=False, dejitter_timestamps=False, verbose=False
        )
    except Exception as error:  # pyxdf raises what its parsing of a damaged file happens to raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"{path} cannot be read as XDF ({reason:.120}): it is damaged, copy it again") from error
    regular = [one for one in streams if _rate(one) > 0 and _format(one) != "string"]
    kind = choice.modality.upper()
    if choice.stream is None:
        fitting, what = [one for one in regular if _kind(one) == kind.lower()], f"signals of type {kind}"
    else:
        fitting, what = [one for one in regular if _name(one) == choice.stream], f"signals named {choice.stream!r}"
    signal = _one(fitting, regular, f"{path} has {len(fitting)} {what}", choice.stream_option)
    marked = [one for one in streams if _is_markers(one)]
    markers = None
    if marked or choice.markers is not None:
        fitting = [one for one in marked if choice.markers in (None, _name(one))]
        markers = _one(fitting, marked, f"{path} has {len(fitting)} fitting streams of markers", choice.markers_option)
    data = np.asarray(signal["time_series"])

    def read(start: int, stop: int) -> NDArray[np.float64]:
        part: NDArray[np.float64] = data[start:stop].T.astype(np.float64)
        return part

    info = signal["info"]
    channels, units = _channels(info, choice.modality)
    return Recorded(
        info=SignalInfo(
            name=_name(signal),
            channels=channels,
            sfreq=_rate(signal),
            units=units,
            source_id=_value(info, "source_id"),
            hostname=_value(info, "hostname"),
            dtype=DTYPES.get(_format(signal), "float64"),
        ),
        stamps=np.asarray(signal["time_stamps"], np.float64),
        read=read if len(data) else lambda start, stop: np.empty((len(channels), 0)),
        markers=() if markers is None else tuple(_marks(markers)),
        offsets=(*_offsets(SIGNAL, signal), *_offsets(MARKERS, signal if markers is None else markers)),
        notes=(_UNCERTAIN if any(one.get("clock_times") for one in (signal, markers or signal)) else _NO_CLOCK,),
    )


def _name(stream: Any) -> str:
    return _value(stream["info"], "name")


def _rate(stream: Any) -> float:
    return float(stream["info"]["nominal_srate"][0])


def _format(stream: Any) -> str:
    return str(stream["info"]["channel_format"][0])


def _value(info: Mapping[str, Any], name: str) -> str:
    return str((info.get(name) or [""])[0] or "").strip()


def _kind(stream: Any) -> str:
    return _value(stream["info"], "type").lower()


def _is_markers(stream: Any) -> bool:
    """Texts, or one whole number without a rate; one channel."""
    if _kind(stream) in _NOT_MARKERS or int(stream["info"]["channel_count"][0]) != 1:
        return False
    return _format(stream) == "string" or (_rate(stream) == 0 and _format(stream).startswith("int"))


def _one(found: Sequence[Any], there: Sequence[Any], what: str, option: str) -> Any:
    if len(found) != 1:
        names = ", ".join(f"{shown(_name(one))} ({_kind(one)})" for one in there) or "none"
        raise InputError(f"{what}: name one with {option}, of {names}")
    return found[0]


def _channels(info: Mapping[str, Any], modality: str) -> tuple[tuple[Channel, ...], tuple[str, ...]]:
    """The channels by LSL's convention, desc/channels/channel, and the units as declared."""
    node: Any = info.get("desc") or [None]
    for name in ("channels", "channel"):
        node = (node[0] or {}).get(name) or [None]
    listed = [one for one in node if one]
    n_channels = int(info["channel_count"][0])
    channels, units, names = [], [], set[str]()
    for row in range(n_channels):
        about = listed[row] if len(listed) == n_channels else {}
        name = _value(about, "label") or f"{modality.upper()}{row + 1:03d}"
        name = name if name not in names else f"{name}-{row}"
        names.add(name)
        kind = _value(about, "type").lower()
        usual = "mag" if modality == "meg" else "eeg"
        channels.append(Channel(name=name, type=kind if kind in CHANNEL_TYPES else usual if not kind else "misc"))
        units.append(_value(about, "unit"))
    return tuple(channels), tuple(units)


def _marks(stream: Any) -> list[tuple[float, bytes]]:
    texts = _format(stream) == "string"
    return [
        (float(stamp), str(values[0] if texts else int(values[0])).encode())
        for stamp, values in zip(stream["time_stamps"], stream["time_series"], strict=True)
    ]


def _offsets(which: str, stream: Any) -> list[ClockOffset]:
    """XDF keeps each offset with the sender's time of its measurement, and no uncertainty."""
    times, values = stream.get("clock_times") or [], stream.get("clock_values") or []
    found = [
        ClockOffset(stream=which, at=float(time) + float(value), offset=float(value), uncertainty=0.0)
        for time, value in zip(times, values, strict=True)
    ]
    if found:
        return sorted(found, key=lambda item: item.at)
    stamps = stream["time_stamps"]
    at = float(stamps[0]) if len(stamps) else 0.0
    return [ClockOffset(stream=which, at=at, offset=0.0, uncertainty=0.0)]
