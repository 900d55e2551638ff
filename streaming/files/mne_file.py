"""Recordings that MNE reads: FIF, EDF, BDF, BrainVision, EEGLAB, CTF and others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.layout import CHANNEL_TYPES, Channel
from ...runtime.errors import FileError, InputError
from ..records import MARKERS, SIGNAL, ClockOffset, SignalInfo
from .recorded import Choice, Recorded

_UNITS = {"mag": "T", "ref_meg": "T", "grad": "T/m"}
# What MNE writes over samples that were not recorded, and where two recordings were joined.
_UNRECORDED, _JOINED = "bad_acq_skip", ("bad boundary", "edge boundary")
# Where Neuromag puts its trigger lines together, on newer and older systems.
_TOGETHER = ("STI101", "STI 014", "STI014")


def open_mne(path: Path, choice: Choice) -> Recorded:
    """Open a recording; the first sample is at 0 s, annotations and rises of the trigger channels are its markers.

    Raises
    ------
    FileError
        MNE cannot read it, or it has no EEG or MEG channel.
    InputError
        The trigger channel does not exist.
    """
    import mne

    try:
        raw = mne.io.read_raw(path, preload=False, verbose="error")
    except Exception as error:  # MNE's readers raise a dozen types for files that they cannot read
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"MNE cannot read {path} ({reason:.120}): give another file, or copy it again") from error
    types = raw.get_channel_types()
    rows = [row for row, kind in enumerate(types) if kind in CHANNEL_TYPES]
    if not rows:
        raise FileError(f"{path} has no EEG and no MEG channel: give another recording")
    sfreq = float(raw.info["sfreq"])
    spans = _annotated(raw)
    kept = np.ones(raw.n_times, bool)
    for start, stop, text in spans:
        if text.lower() == _UNRECORDED:
            kept[max(start, 0) : max(stop, 0)] = False
    places = np.flatnonzero(kept)
    markers = [(start, text) for start, _, text in spans if text.lower() not in (_UNRECORDED, *_JOINED)]
    markers += _triggers(mne, raw, choice.trigger, types)
    joints = sorted({start for start, _, text in spans if text.lower() in _JOINED and 0 < start < raw.n_times})

    def read(start: int, stop: int) -> NDArray[np.float64]:
        wanted = places[start:stop]
        if len(wanted) == 0:
            return np.empty((len(rows), 0))
        first = int(wanted[0])
        try:
            data = raw.get_data(rows, first, int(wanted[-1]) + 1, verbose="error")
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FileError(f"{path} cannot be read from sample {first} on ({reason:.120}): copy it again") from error
        picked: NDArray[np.float64] = data[:, wanted - first]
        return picked

    return Recorded(
        info=SignalInfo(
            name=path.name,
            channels=tuple(_channel(raw.info["chs"][row], types[row]) for row in rows),
            sfreq=sfreq,
            units=tuple(_UNITS.get(types[row], "V") for row in rows),
        ),
        stamps=places / sfreq,
        read=read,
        markers=tuple((sample / sfreq, text.encode()) for sample, text in sorted(markers)),
        offsets=tuple(ClockOffset(stream=name, at=0.0, offset=0.0, uncertainty=0.0) for name in (SIGNAL, MARKERS)),
        joints=tuple((int(np.searchsorted(places, sample)), "two recordings were joined") for sample in joints),
    )


def _annotated(raw: Any) -> list[tuple[int, int, str]]:
    """First sample, the one behind the last, and text of each annotation; samples as mne.events_from_annotations."""
    found = raw.annotations
    # Without a date of the measurement MNE counts annotations from sample 0 of the device, not of the file.
    skipped = raw.first_samp if found.orig_time is None else 0
    starts = raw.time_as_index(found.onset, use_rounding=True, origin=found.orig_time) - skipped
    ends = raw.time_as_index(found.onset + found.duration, use_rounding=True, origin=found.orig_time) - skipped
    texts = map(str, found.description)
    return [(int(start), int(end), text) for start, end, text in zip(starts, ends, texts, strict=True)]


def _channel(about: Any, kind: str) -> Channel:
    place = np.asarray(about["loc"][:3], float)
    known = kind == "eeg" and bool(np.isfinite(place).all() and place.any())
    position = (float(place[0]), float(place[1]), float(place[2])) if known else None
    return Channel(name=about["ch_name"].strip(), type=kind, position=position)


def _triggers(mne: Any, raw: Any, trigger: str | None, types: Sequence[str]) -> list[tuple[int, str]]:
    """Where a trigger channel rises to another number, and the number as text."""
    stim = [name for name, kind in zip(raw.ch_names, types, strict=True) if kind == "stim"]
    if trigger is not None and trigger not in raw.ch_names:
        raise InputError(
            f"the recording has no channel {trigger!r}: its stimulus channels are {', '.join(stim) or 'none'}"
        )
    together = [name for name in _TOGETHER if name in stim][:1]
    found = []
    for name in [trigger] if trigger is not None else together or stim:
        events = mne.find_events(raw, stim_channel=name, shortest_event=1, verbose="error")
        found += [(int(sample) - raw.first_samp, str(code)) for sample, _, code in events]
    return found
