"""Recordings that MNE reads: FIF, EDF, BDF, GDF, BrainVision, EEGLAB, CTF, KIT, EGI and others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.data.layout import CHANNEL_TYPES, Channel
from ....runtime.errors import FileError, InputError, MissingExtra
from ..foreign import looks_like
from .source import NOWHERE, Recording

# What a folder is searched for; a file of another ending that MNE reads can be named in the table.
SUFFIXES = (".fif", ".fif.gz", ".edf", ".bdf", ".gdf", ".vhdr", ".set", ".cnt", ".ds", ".mff", ".sqd", ".con", ".nxe")
# What MNE writes over samples that were not recorded, or where two recordings were joined.
_CUTS = ("bad_acq_skip", "bad boundary", "edge boundary")
# Where Neuromag puts its trigger lines together, on newer and older systems; the lines have channels of their own too.
_TOGETHER = ("STI101", "STI 014", "STI014")
_OF_THE_DEVICE = ("mag", "grad", "ref_meg")


def mne_library(what: str) -> Any:
    """MNE, where it is installed.

    Raises
    ------
    MissingExtra
        It is not.
    """
    try:
        import mne
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{what} needs {error.name}: pip install 'minddiffuser[data]'") from error
    return mne


def open_mne(path: Path, *, trigger: str | None, montage: str | None, size: float) -> Recording:
    """Open a recording; its samples are read later.

    Parameters
    ----------
    path
        A file, or a folder for CTF's .ds and EGI's .mff.
    trigger
        The channel with trigger codes; None for the one that puts a Neuromag's lines together where there is such a
        channel, as in MNE, else for all stimulus channels.
    montage
        Name of one of MNE's standard montages, for the electrodes' positions; None for those in the file.
    size
        By what MNE's numbers are multiplied, 1 where they are V and T as they should be.

    Raises
    ------
    FileError
        It is missing, damaged, or of a kind that MNE does not know.
    InputError
        The trigger channel or the montage does not exist.
    """
    mne = mne_library(f"reading {path.name}")
    try:
        raw = mne.io.read_raw(path, preload=False, verbose="error")
    except Exception as error:  # MNE's readers raise a dozen types for files that they cannot read
        reason = " ".join(str(error).split()) or type(error).__name__
        found = looks_like(path) if path.is_file() else "not a file"
        raise FileError(f"MNE cannot read {path}, which looks like {found} ({reason:.120}): copy it again") from error
    if montage is not None:
        _set_montage(raw, montage)
    types = raw.get_channel_types()
    rows = [row for row, kind in enumerate(types) if kind in CHANNEL_TYPES]
    channels = tuple(_channel(mne, raw.info, row, types[row]) for row in rows)
    annotations = raw.annotations
    # Without a date of the measurement MNE counts annotations from sample 0 of the device, not of the file.
    skipped, origin = (raw.first_samp if annotations.orig_time is None else 0), annotations.orig_time
    starts = raw.time_as_index(annotations.onset, use_rounding=True, origin=origin) - skipped
    ends = raw.time_as_index(annotations.onset + annotations.duration, use_rounding=True, origin=origin) - skipped
    texts = [str(text) for text in annotations.description]
    spans = [(text.lower(), int(a), int(b)) for text, a, b in zip(texts, starts, ends, strict=True)]
    marks = [(int(start), text) for start, text in zip(starts, texts, strict=True)]
    marks += _triggers(mne, raw, trigger, types)

    def read(wanted: Sequence[int], start: int, stop: int) -> NDArray[np.float64]:
        try:
            data: NDArray[np.float64] = raw.get_data([rows[row] for row in wanted], start, stop, verbose="error")
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FileError(f"{path} cannot be read from sample {start} on ({reason:.120}): copy it again") from error
        return data * size

    def at(seconds: float) -> int:
        sample = round(seconds * raw.info["sfreq"])
        return sample if 0 <= sample < raw.n_times else NOWHERE

    return Recording(
        name=_stem(path),
        path=path,
        files=tuple(dict.fromkeys([path, *(Path(name) for name in raw.filenames if name is not None)])),
        channels=channels,
        bad=frozenset(raw.info["bads"]),
        sfreq=float(raw.info["sfreq"]),
        segments=_segments(int(raw.n_times), [(a, max(b, a)) for text, a, b in spans if text in _CUTS]),
        marks=tuple(sorted(marks)),
        spoilt=tuple((a, b + 1) for text, a, b in spans if text.startswith("bad")),
        at=at,
        read=read,
    )


def is_recording(path: Path) -> bool:
    """Whether a file or folder has the ending of a recording that MNE reads."""
    return path.name.lower().endswith(SUFFIXES)


def _stem(path: Path) -> str:
    suffix = next((suffix for suffix in (".fif.gz", path.suffix) if path.name.lower().endswith(suffix)), "")
    return path.name[: len(path.name) - len(suffix)]


def _set_montage(raw: Any, name: str) -> None:
    try:
        raw.set_montage(name, match_case=False, on_missing="ignore", verbose="error")
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the montage {name!r} cannot be used ({reason:.160}): give one such as easycap-M1") from error


def _channel(mne: Any, info: Any, row: int, kind: str) -> Channel:
    """A channel with its place in head coordinates, in metres, where it is known; files have MEG's in the device's."""
    about = info["chs"][row]
    place = np.asarray(about["loc"][:3], float)
    known = bool(np.isfinite(place).all() and place.any())
    if known and kind in _OF_THE_DEVICE and info["dev_head_t"] is not None:
        place = mne.transforms.apply_trans(info["dev_head_t"], place)
    position = (float(place[0]), float(place[1]), float(place[2])) if known else None
    return Channel(name=about["ch_name"].strip(), type=kind, position=position)


def _triggers(mne: Any, raw: Any, trigger: str | None, types: Sequence[str]) -> list[tuple[int, str]]:
    """Where a trigger channel rises to another number, and the number as text."""
    stim = [name for name, kind in zip(raw.ch_names, types, strict=True) if kind == "stim"]
    if trigger is not None and trigger not in raw.ch_names:
        raise InputError(
            f"{raw.filenames[0]} has no channel {trigger!r}: give --trigger one of its stimulus channels, "
            f"{', '.join(stim) or 'of which it has none'}"
        )
    together = [name for name in _TOGETHER if name in stim][:1]
    names = [trigger] if trigger is not None else together or stim
    found = []
    for name in names:
        events = mne.find_events(raw, stim_channel=name, shortest_event=1, verbose="error")
        found += [(int(sample) - raw.first_samp, str(code)) for sample, _, code in events]
    return found


def _segments(n_samples: int, gaps: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """What lies between the gaps."""
    edges = [(0, 0), *sorted(gaps), (n_samples, n_samples)]
    pairs = [(before[1], after[0]) for before, after in zip(edges, edges[1:], strict=False)]
    return tuple((start, stop) for start, stop in pairs if stop > start)
