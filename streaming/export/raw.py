"""A part of a session as MNE's Raw."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from .continuous import Part

GAP = "BAD_ACQ_SKIP"  # MNE's own word: its FIF files leave such a stretch out, and its epochs avoid it


EXACT = "marker"
"""The key of an annotation's extras under which a marker's text stands, where its description had to be rewritten."""


def latin(text: str) -> str:
    """A text as FIF holds it: in Latin-1, other characters as MNE writes them, by their numbers ("&#8220;")."""
    return text.encode("latin-1", "xmlcharrefreplace").decode("latin-1")


def raw_of(part: Part, started: datetime | None, *, in_latin: bool = False) -> Any:
    """The part as `mne.io.RawArray`, with its markers and gaps as annotations.

    Parameters
    ----------
    part
        Its samples are not copied.
    started
        The wall clock at the session's start; None where it is not known.
    in_latin
        Whether descriptions of annotations are to be Latin-1, as :func:`latin` makes them; the exact text of a marker
        then stands in the annotation's extras, under `EXACT`.
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
    texts = [(latin(event.text) if in_latin else event.text) or " " for event in part.events]
    extras: list[dict[str, str] | None] = [
        {EXACT: event.text} if event.text and text != event.text else None
        for event, text in zip(part.events, texts, strict=True)
    ]
    onsets = [event.sample / part.sfreq for event in part.events] + [start / part.sfreq for start, _ in part.gaps]
    durations = [0.0] * len(part.events) + [(stop - start) / part.sfreq for start, stop in part.gaps]
    texts += [GAP] * len(part.gaps)
    made = mne.Annotations(
        onsets, durations, texts, orig_time=raw.info["meas_date"], extras=[*extras, *[None] * len(part.gaps)]
    )
    raw.set_annotations(made, verbose="error")
    return raw
