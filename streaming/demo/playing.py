"""The shipped session as the amplifier would send it, in a process of its own."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np

from ...runtime.demo.session import DemoSession, read_session
from ..lsl.play import Performance
from ..records import Marker, Samples, SignalInfo

# What each kind of signal is usually sent in: the unit's name, and how many of it are a V or a T.
_UNITS = {"eeg": ("microvolts", 1e6), "meg": ("fT", 1e15)}


def played(folder: Path, source_id: str) -> Performance:
    """The session in `folder`, to be sent sample by sample under this source_id: what the process runs.

    Raises
    ------
    FileError
        It is missing or damaged.
    """
    # Ctrl-C reaches every process of a terminal: this one plays on until the session has been closed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return performance(read_session(folder), source_id)


def performance(session: DemoSession, source_id: str) -> Performance:
    """A session as streams; the markers' source_id has "-markers" behind the signal's."""
    unit, factor = _UNITS[session.modality]
    kind = session.modality.upper()
    info = SignalInfo(
        name=f"Simulated {kind}",
        channels=session.channels,
        sfreq=session.sfreq,
        units=(unit,) * len(session.channels),
        source_id=source_id,
    )
    stamps = np.arange(session.data.shape[1]) / session.sfreq
    samples = Samples(stamps=stamps, data=session.data * factor, arrived=0.0)
    markers = [
        Marker(ordinal=ordinal, stamp=sample / session.sfreq, arrived=0.0, raw=text.encode())
        for ordinal, (sample, text) in enumerate(session.markers)
    ]
    # Markers first: they are sent when they are due, and all of them have to be read by then.
    return Performance(info=info, type=kind, items=[*markers, samples], marker_name=f"Simulated {kind} markers")
