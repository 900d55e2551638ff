"""From the options of the command to the steps of the signal chain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ....runtime.data.layout import CHANNEL_TYPES
from ....runtime.errors import FileError, InputError
from .source import Recording

# The rate of the epochs is at most this, where it is not given: the recording's, divided by a whole number.
_MOST_HZ = 256.0
_WHOLE = 1e-6


@dataclass(frozen=True, kw_only=True)
class ChainOptions:
    """How recordings become epochs; times in seconds, frequencies in Hz.

    Parameters
    ----------
    channels : names, or types such as "eeg"; None for all EEG, or all MEG channels where there are any, that no
        recording marks as bad.
    reference : "none" (as recorded), "average" (over the EEG channels that are not bad), or names of channels.
    l_freq, h_freq : the pass band; None for no such filter.
    notch : frequencies to remove.
    causal : filter forward only, so that a live system can repeat it.
    sfreq : rate of the epochs; None for at most 256 Hz, the recording's rate divided by a whole number.
    tmin, tmax : the epochs' first and last sample from the event, both included.
    baseline : first and last time of what is subtracted, or None.
    detrend : None, 0 (mean) or 1 (line).
    peak_to_peak, flat : limits per type of channel, in V, T or T/m.
    """

    channels: tuple[str, ...] | None = None
    reference: tuple[str, ...] = ("none",)
    l_freq: float | None = 0.1
    h_freq: float | None = 40.0
    notch: tuple[float, ...] = ()
    causal: bool = True
    sfreq: float | None = None
    tmin: float = -0.2
    tmax: float = 1.0
    baseline: tuple[float, float] | None = (-0.2, 0.0)
    detrend: int | None = None
    peak_to_peak: Mapping[str, float] = field(default_factory=dict)
    flat: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For the provenance."""
        return asdict(self)


def chain_of(recordings: Sequence[Recording], options: ChainOptions) -> dict[str, Any]:
    """The chain for all recordings of a subject, without whitening: ``{"steps": […]}``.

    Raises
    ------
    FileError
        The recordings have different rates or channels.
    InputError
        A channel or a frequency cannot be had.
    """
    from ....runtime.signal.filters import design_filter

    sfreq = _common_rate(recordings)
    names = _channels(recordings, options.channels)
    if options.sfreq is not None and not (math.isfinite(options.sfreq) and options.sfreq > 0):
        raise InputError(f"the rate of the epochs is {options.sfreq:g} Hz: give --sfreq a number above 0, such as 250")
    steps: list[dict[str, Any]] = []
    needed = list(names)
    if options.reference == ("average",):
        needed += [name for name in _of_types(recordings, ("eeg",)) if name not in needed]
        reference: dict[str, Any] | None = {"name": "reference", "kind": "average"}
    elif options.reference != ("none",):
        _check_there(recordings, options.reference)
        needed += [name for name in options.reference if name not in needed]
        reference = {"name": "reference", "kind": "channels", "channels": list(options.reference)}
    else:
        reference = None
    steps.append({"name": "pick", "channels": needed})
    if reference is not None:
        steps.append(reference)
        if needed != names:
            steps.append({"name": "pick", "channels": names})
    steps += design_filter(sfreq, options.l_freq, options.h_freq, causal=options.causal, notch=options.notch or None)
    wanted = sfreq / max(1, math.ceil(sfreq / _MOST_HZ - _WHOLE)) if options.sfreq is None else options.sfreq
    factor = round(sfreq / wanted)
    decimated = factor >= 1 and abs(sfreq / wanted / factor - 1) < _WHOLE
    if not decimated:
        steps.append({"name": "resample", "sfreq": wanted, "causal": options.causal})
    steps.append({"name": "epoch", "tmin": options.tmin, "tmax": options.tmax})
    if options.detrend is not None:
        steps.append({"name": "detrend", "order": options.detrend})
    if options.peak_to_peak or options.flat:
        _check_limits(recordings[0], names, options)
        steps.append({"name": "reject", "peak_to_peak": dict(options.peak_to_peak), "flat": dict(options.flat)})
    if options.baseline is not None:
        steps.append({"name": "baseline", "tmin": options.baseline[0], "tmax": options.baseline[1]})
    if decimated and factor > 1:
        steps.append({"name": "decimate", "factor": factor})
    return {"steps": steps}


def _check_limits(recording: Recording, names: Sequence[str], options: ChainOptions) -> None:
    """Refuse a limit for a type that no channel of the epochs has: it would be passed over in silence."""
    kinds = {channel.type for channel in recording.channels if channel.name in set(names)}
    for option, limits in (("--reject", options.peak_to_peak), ("--flat", options.flat)):
        stray = sorted(set(limits) - kinds)
        if stray:
            raise InputError(
                f"{option} has a limit for {stray[0]}, and the epochs' channels are of the types "
                f"{', '.join(sorted(kinds))}: name channels of that type with --channels too, or leave the limit out"
            )


def _common_rate(recordings: Sequence[Recording]) -> float:
    first = recordings[0]
    for other in recordings[1:]:
        if abs(other.sfreq / first.sfreq - 1) > _WHOLE:
            raise FileError(
                f"{first.path} has {first.sfreq:g} Hz and {other.path} {other.sfreq:g} Hz: a subject's recordings have "
                "one rate, resample one of them beforehand or leave it out"
            )
    return first.sfreq


def _channels(recordings: Sequence[Recording], given: tuple[str, ...] | None) -> list[str]:
    """The channels of the epochs, in the order in which they were named, or that of the first recording."""
    if given is None:
        kinds = {channel.type for channel in recordings[0].channels}
        types = ("mag", "grad") if kinds & {"mag", "grad"} else ("eeg",)
        names = _of_types(recordings, types)
        if not names:
            raise FileError(
                f"{recordings[0].path} has no EEG and no MEG channel that is good in all recordings (its types are "
                f"{', '.join(sorted(kinds)) or 'none'}): name the channels with --channels"
            )
        return names
    names = []
    for word in given:
        named = _of_types(recordings, (word,)) if word in CHANNEL_TYPES else [word]
        if not named:
            raise InputError(f"no channel of type {word} is good in all recordings: name others with --channels")
        names += [name for name in named if name not in names]
    _check_there(recordings, names)
    return names


def _of_types(recordings: Sequence[Recording], types: tuple[str, ...]) -> list[str]:
    """Channels of these types that every recording has and none marks as bad."""
    bad = {name for recording in recordings for name in recording.bad}
    sets = [{channel.name for channel in recording.channels} for recording in recordings]
    own = [channel.name for channel in recordings[0].channels if channel.type in types]
    return [name for name in own if name not in bad and all(name in there for there in sets)]


def _check_there(recordings: Sequence[Recording], names: Sequence[str]) -> None:
    for recording in recordings:
        there = [channel.name for channel in recording.channels]
        missing = [name for name in names if name not in there]
        if missing:
            more = ", ..." if len(there) > 8 else ""
            raise FileError(
                f"{recording.path} has no channel {missing[0]}: its channels are {', '.join(there[:8])}{more}"
            )


def left_out(recordings: Sequence[Recording], names: Sequence[str]) -> str | None:
    """A sentence about channels of the epochs' types that were left out; None where there are none."""
    kinds = {channel.type for channel in recordings[0].channels if channel.name in set(names)}
    others = [channel.name for channel in recordings[0].channels if channel.type in kinds and channel.name not in names]
    if not others:
        return None
    return f"{len(others)} channels left out: {', '.join(others[:12])}{', ...' if len(others) > 12 else ''}"
