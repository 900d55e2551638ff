"""What one trial's responses are: their shape, and what its axes mean.

A data folder, a checkpoint and a bundle keep the same JSON object, so that responses with other voxels, channels, rates
or filters than those of training are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError, InputError, shown
from .chain import checked_chain, same_chain
from .json_types import is_label, is_number, is_whole
from .voxels import Voxels

MODALITIES = ("fmri", "eeg", "meg")
CHANNEL_TYPES = ("eeg", "mag", "grad", "ref_meg", "eog", "ecg", "emg", "misc")
# Of EEG and MEG: SI units (gradiometers in T/m where magnetometers are in T), or 1 for whitened and z-scored signals.
UNITS = {"eeg": ("V", "1"), "meg": ("T", "1")}
Roi = tuple[int, int] | frozenset[int]
Rois = Mapping[str, Roi]
_OF_SENSORS = ("channels", "sfreq", "tmin", "signal")
_MOST_NAMED = 6
# Further off, another sample is the nearest.
_MOST_SAMPLES_OFF = 0.5
_LABEL = "a text of one line, at most 100 printable characters,"


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One sensor: its name, a type of `CHANNEL_TYPES`, and where it is, (x, y, z) in metres, where that is known."""

    name: str
    type: str
    position: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if not is_label(self.name) or self.name != self.name.strip():
            raise InputError(f"a channel is named {shown(self.name)}: give {_LABEL} such as 'Oz'")
        if self.type not in CHANNEL_TYPES:
            raise InputError(
                f"channel {shown(self.name)} is of type {shown(self.type)}: give one of {', '.join(CHANNEL_TYPES)}"
            )
        if self.position is not None:
            place = self.position
            if not isinstance(place, Sequence) or len(place) != 3 or not all(map(is_number, place)):
                raise InputError(
                    f"the position of channel {shown(self.name)} is {shown(place)}: give [x, y, z] in metres, or null"
                )
            object.__setattr__(self, "position", tuple(map(float, place)))

    def as_json(self) -> dict[str, Any]:
        """The channel as JSON; the position only where it is known."""
        about: dict[str, Any] = {"name": self.name, "type": self.type}
        return about if self.position is None else {**about, "position": list(self.position)}


@dataclass(frozen=True, kw_only=True)
class ResponseLayout:
    """What one trial's responses are.

    Attributes
    ----------
    modality
        "fmri", "eeg" or "meg".
    shape
        Of one trial's responses: (n_voxels,) for fMRI, (n_channels, n_times) for EEG and MEG.
    rois
        fMRI: name to (start, stop) in the voxel axis, or to a frozenset of voxels where a region is no such range.
        Regions may overlap (groups such as LVC and HVC). None where they are not known.
    voxels
        fMRI: where the voxels lie, n_voxels of them, or None where it is not known. It lies in a file of its own (see
        :mod:`.voxels`) and is no part of the JSON.
    channels
        EEG and MEG: n_channels of them, in the order of the axis, names unique.
    sfreq
        EEG and MEG: samples per second.
    tmin
        EEG and MEG: time of the first sample in seconds, 0 when the picture appears.
    unit
        EEG: "V", MEG: "T" (gradiometers T/m), either: "1" for whitened or z-scored signals. fMRI: any text, or None.
    signal
        EEG and MEG: the chain that made the epochs, as JSON (see :mod:`.chain`), or None where it is not known.
        Tuples, and numpy's numbers and arrays, are kept as lists and numbers.

    Raises
    ------
    InputError
        A field is missing, wrong, or of another modality.
    """

    modality: str
    shape: tuple[int, ...]
    rois: Rois | None = None
    voxels: Voxels | None = None
    channels: tuple[Channel, ...] | None = None
    sfreq: float | None = None
    tmin: float | None = None
    unit: str | None = None
    signal: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.modality, str) or self.modality not in MODALITIES:
            raise InputError(f"modality is {shown(self.modality)}: give one of {', '.join(MODALITIES)}")
        axes = ("n_voxels",) if self.modality == "fmri" else ("n_channels", "n_times")
        good = isinstance(self.shape, list | tuple) and all(is_whole(n) and n > 0 for n in self.shape)
        if not good or len(self.shape) != len(axes):
            raise InputError(
                f"response_shape is {shown(self.shape)}: {self.modality} has ({', '.join(axes)}{',' * (len(axes) < 2)})"
                ", whole numbers above 0"
            )
        object.__setattr__(self, "shape", tuple(self.shape))
        if self.modality == "fmri":
            self._check_voxels()
        else:
            self._check_sensors()

    def _check_voxels(self) -> None:
        stray = [name for name in _OF_SENSORS if getattr(self, name) is not None]
        if stray:
            raise InputError(f"{stray[0]} is given for fmri: only eeg and meg have it, leave it out")
        if self.unit is not None and not is_label(self.unit):
            raise InputError(f"unit is {shown(self.unit)}: give {_LABEL} such as '% signal change', or leave it out")
        if self.rois is not None:
            object.__setattr__(self, "rois", _checked_rois(self.rois, self.shape[0]))
        if self.voxels is not None and len(self.voxels.ijk) != self.shape[0]:
            raise InputError(
                f"voxels have {len(self.voxels.ijk)} places, and there are {self.shape[0]} voxels: give one each"
            )

    def _check_sensors(self) -> None:
        if self.rois is not None:
            raise InputError(f"rois are given for {self.modality}: only fmri has them, leave them out")
        if self.voxels is not None:
            raise InputError(f"places of voxels are given for {self.modality}: only fmri has them, leave them out")
        object.__setattr__(self, "channels", _checked_channels(self.channels, self.shape[0]))
        if not is_number(self.sfreq) or self.sfreq <= 0:
            raise InputError(f"sfreq is {shown(self.sfreq)}: give the samples per second, a number above 0")
        if not is_number(self.tmin):
            raise InputError(f"tmin is {shown(self.tmin)}: give the first sample's time in seconds, such as -0.2")
        object.__setattr__(self, "sfreq", float(self.sfreq))
        object.__setattr__(self, "tmin", float(self.tmin))
        units = UNITS[self.modality]
        if self.unit not in units:
            raise InputError(
                f"unit is {shown(self.unit)}: {self.modality} is in {units[0]} (bring other units to it), or in "
                f"{units[1]!r} where it was whitened or z-scored"
            )
        if self.signal is not None:
            object.__setattr__(self, "signal", checked_chain(self.signal))

    @property
    def n_features(self) -> int:
        """How many numbers one trial has: the product of the shape."""
        return math.prod(self.shape)

    @property
    def axis(self) -> str:
        """What the first axis counts, in the singular: "voxel" or "channel"."""
        return "voxel" if self.modality == "fmri" else "channel"

    def as_json(self) -> dict[str, Any]:
        """The layout as a JSON object, without `voxels`; what is not known is left out."""
        about: dict[str, Any] = {"modality": self.modality, "response_shape": list(self.shape)}
        if self.rois is not None:
            rois = self.rois.items()
            about["rois"] = {k: list(roi) if isinstance(roi, tuple) else {"indices": sorted(roi)} for k, roi in rois}
        if self.channels is not None:
            about["channels"] = [channel.as_json() for channel in self.channels]
        known = {name: getattr(self, name) for name in ("sfreq", "tmin", "unit", "signal")}
        return {**about, **{name: value for name, value in known.items() if value is not None}}

    @staticmethod
    def from_json(content: object, where: str, advice: str = "") -> ResponseLayout:
        """Read what :meth:`as_json` gives; fields of other names are left alone.

        Parameters
        ----------
        content
            From a file.
        where
            The file's name, for messages.
        advice
            What to do where it cannot be used, to end the message.

        Raises
        ------
        FileError
            It is no object, or a field is missing, wrong, or of another modality.
        """
        end = advice and f": {advice}"
        if not isinstance(content, Mapping):
            raise FileError(f"the layout of the responses in {where} is {shown(content)}: expected an object{end}")
        try:
            return ResponseLayout(
                modality=content.get("modality"),  # type: ignore[arg-type]
                shape=content.get("response_shape"),  # type: ignore[arg-type]
                rois=_rois_from_json(content.get("rois")),
                channels=_channels_from_json(content.get("channels")),
                **{name: content.get(name) for name in ("sfreq", "tmin", "unit", "signal")},
            )
        except InputError as error:
            raise FileError(f"{where}: {error}{end}") from None

    def require_same(self, other: ResponseLayout, what: str) -> None:
        """Refuse responses that are not laid out as those of training, which this layout describes.

        Positions of channels are not compared (they differ between sessions), nor what one of the two does not know:
        a roi, the voxels' places, the unit of fMRI, the signal chain. Rate and first sample may differ by so little
        that every sample is taken less than half a sample earlier or later.

        Parameters
        ----------
        other
            Of the responses that are given.
        what
            What was fitted on this layout, for messages ("the checkpoint sub-01").

        Raises
        ------
        InputError
            They differ; the message names the first difference.
        """
        difference = self._difference(other)
        if difference is not None:
            raise InputError(
                f"the responses differ from those that {what} was fitted on: {difference}; give the same subject's "
                f"responses with the same {self.axis}s in the same order, made in the same way"
            )

    def _difference(self, other: ResponseLayout) -> str | None:
        if self.modality != other.modality:
            return f"it was fitted on {self.modality}, these are {other.modality}"
        if self.channels is not None and other.channels is not None:
            named = _channel_difference(self.channels, other.channels)
            if named is not None:
                return named
        for axis, expected, given in zip((f"{self.axis}s", "samples"), self.shape, other.shape, strict=False):
            if expected != given:
                return f"it was fitted on {expected} {axis}, these have {given}"
        if self.voxels is not None and other.voxels is not None:
            moved = self.voxels.difference(other.voxels)
            if moved is not None:
                return moved
        if self.rois is not None and other.rois is not None:
            named = _roi_difference(self.rois, other.rois)
            if named is not None:
                return named
        late = _time_difference(self, other)
        if late is not None:
            return late
        if self.unit != other.unit and not (self.modality == "fmri" and None in (self.unit, other.unit)):
            return f"unit is {self.unit} there and {other.unit} here"
        return same_chain(self.signal, other.signal)


def voxels_of(roi: Roi) -> NDArray[np.intp]:
    """The voxels of a region, (n,) in ascending order."""
    return np.arange(*roi) if isinstance(roi, tuple) else np.array(sorted(roi), np.intp)


def _checked_rois(rois: Any, n_voxels: int) -> dict[str, Roi]:
    if not isinstance(rois, Mapping) or not rois:
        raise InputError(f"rois is {shown(rois)}: give an object of name to [start, stop], or leave it out")
    return {name: _checked_roi(name, roi, n_voxels) for name, roi in rois.items()}


def _checked_roi(name: Any, roi: Any, n_voxels: int) -> Roi:
    if not is_label(name):
        raise InputError(f"a roi is named {shown(name)}: give {_LABEL} such as 'V1'")
    if isinstance(roi, list | tuple) and len(roi) == 2 and all(map(is_whole, roi)):
        start, stop = roi
    elif isinstance(roi, set | frozenset) and roi and all(map(is_whole, roi)):
        start, stop = min(roi), max(roi) + 1
    else:
        raise InputError(
            f"roi {shown(name)} is {shown(roi)}: give [start, stop] in voxels, or a set of voxels, "
            '{"indices": [3, 4, 9]} in JSON'
        )
    if not 0 <= start < stop <= n_voxels:
        raise InputError(
            f"roi {shown(name)} spans voxels {shown(start)} to {shown(stop)}, and there are {shown(n_voxels)}: voxels "
            "count from 0, and stop is the first one behind the region"
        )
    whole = isinstance(roi, list | tuple) or len(roi) == stop - start
    return (start, stop) if whole else frozenset(roi)


def _rois_from_json(rois: Any) -> Any:
    """Index sets as sets; whatever else it is, the layout says what is wrong with it."""
    if not isinstance(rois, Mapping):
        return rois
    return {name: _roi_from_json(name, roi) for name, roi in rois.items()}


def _roi_from_json(name: Any, roi: Any) -> Any:
    if not isinstance(roi, Mapping) or set(roi) != {"indices"} or not isinstance(roi["indices"], list):
        return roi
    indices = roi["indices"]
    if not all(map(is_whole, indices)) or any(a >= b for a, b in zip(indices, indices[1:], strict=False)):
        raise InputError(f"roi {shown(name)} has the indices {shown(indices)}: give whole numbers in ascending order")
    return frozenset(indices)


def _checked_channels(channels: Any, n_channels: int) -> tuple[Channel, ...]:
    good = isinstance(channels, list | tuple) and all(isinstance(channel, Channel) for channel in channels)
    if not good or len(channels) != n_channels:
        found = f"{len(channels)} of them" if good else shown(channels)
        raise InputError(f"channels are {found}: give a list with one for each of the {shown(n_channels)} channels")
    names: set[str] = set()
    for channel in channels:
        if channel.name in names:
            raise InputError(f"channel {shown(channel.name)} is listed twice: names are unique")
        names.add(channel.name)
    return tuple(channels)


def _channels_from_json(channels: Any) -> Any:
    if not isinstance(channels, list):
        return channels
    return tuple(_channel_from_json(index, channel) for index, channel in enumerate(channels))


def _channel_from_json(index: int, content: Any) -> Channel:
    if not isinstance(content, Mapping) or not {"name", "type"} <= set(content) <= {"name", "type", "position"}:
        raise InputError(
            f"channel {index} is {shown(content)}: give an object with name, type, and position where it is known"
        )
    return Channel(**content)


def _channel_difference(fitted: Sequence[Channel], given: Sequence[Channel]) -> str | None:
    expected, found = [channel.name for channel in fitted], [channel.name for channel in given]
    missing = [name for name in expected if name not in set(found)]
    extra = [name for name in found if name not in set(expected)]
    differences = [f"{word} {_names(names)}" for word, names in (("lack", missing), ("also have", extra)) if names]
    if differences:
        return f"these {' and '.join(differences)} (channels)"
    for index, (a, b) in enumerate(zip(fitted, given, strict=True)):
        if a.name != b.name:
            return (
                f"the channels are in another order, number {index} is {shown(a.name)} there and {shown(b.name)} here"
            )
        if a.type != b.type:
            return f"channel {shown(a.name)} is of type {a.type} there and {b.type} here"
    return None


def _roi_difference(fitted: Rois, given: Rois) -> str | None:
    """Of regions that both have: one that was drawn later says nothing about the order of voxels."""
    for name, roi in fitted.items():
        if name in given and roi != given[name]:
            return f"roi {shown(name)} is {_voxels(roi)} there and {_voxels(given[name])} here"
    return None


def _time_difference(fitted: ResponseLayout, given: ResponseLayout) -> str | None:
    """The rate or the first sample's time, where a sample is off by half a sample or more somewhere in the epoch."""
    if fitted.sfreq is None or fitted.tmin is None or given.sfreq is None or given.tmin is None:
        return None
    drift = fitted.shape[1] * abs(fitted.sfreq / given.sfreq - 1)
    shift = abs(fitted.tmin - given.tmin) * fitted.sfreq
    if drift + shift < _MOST_SAMPLES_OFF:
        return None
    name, unit = ("sfreq", "Hz") if drift >= shift else ("tmin", "s")
    there, here = (repr(getattr(layout, name)).removesuffix(".0") for layout in (fitted, given))
    return f"{name} is {there} {unit} there and {here} {unit} here"


def _voxels(roi: Roi) -> str:
    if isinstance(roi, tuple):
        return f"voxels {roi[0]} to {roi[1]}"
    first = ", ".join(map(str, sorted(roi)[:_MOST_NAMED]))
    return f"{len(roi)} voxels ({first}{', …' if len(roi) > _MOST_NAMED else ''})"


def _names(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(shown, names[:_MOST_NAMED])) + more
