"""A part of a session as MNE's Raw."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .continuous import Part

GAP = "BAD_ACQ_SKIP"  # MNE's own word: its FIF files leave such a stretch out, and its epochs avoid it


def raw_of(part: Part, started: datetime | None, text_encoding: str = "utf-8") -> Any:
    """The part as `mne.io.RawArray`, with its markers and gaps as annotations.

    Parameters
    ----------
    part
        Its samples are not copied.
    started
        The wall clock at the session's start; None where it is not known.
    text_encoding
        What the file can hold of a marker's text; other characters become "?".
    """
    import mne

    info = mne.create_info(
        [channel.name for channel in part.channels], part.sfreq, [channel.type for channel in part.channels], "error"
    )
    raw = mne.io.RawArray(part.data, info, verbose="error")
    places = {one.name: one.position for one in part.channels if one.type == "eeg" and one.position is not None}
    if places:
        raw.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"), on_missing="ignore")
    if started is not None:
        raw.set_meas_date(started)
    texts = [event.text.encode(text_encoding, "replace").decode(text_encoding) or " " for event in part.events]
    onsets = [event.sample / part.sfreq for event in part.events] + [start / part.sfreq for start, _ in part.gaps]
    durations = [0.0] * len(part.events) + [(stop - start) / part.sfreq for start, stop in part.gaps]
    texts += [GAP] * len(part.gaps)
    raw.set_annotations(mne.Annotations(onsets, durations, texts, orig_time=raw.info["meas_date"]), verbose="error")
    return raw
