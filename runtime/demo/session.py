"""A continuous EEG or MEG session with markers, as it ships with the package: one byte per sample.

session.json          the layout of the whole session (one long trial), and the markers: [sample, text]
signal.safetensors    `steps` int8 (n_channels, n_samples): each sample minus the one before it, in units of the
                      channel's `scale` float64 (n_channels,), V or T; `first` int64 (n_channels,): sample 0 in units

Each channel's scale is the smallest whose steepest step fits into a byte, so that no sample is further than half a
scale from what was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.layout import UNITS, Channel, ResponseLayout
from ..errors import FileError
from ..fields import Field
from ..files import check_arrays, check_format, read_json, read_tensors, write_json, write_tensors
from .packed import ADVICE

F64 = NDArray[np.float64]

DESCRIPTION, SIGNAL = "session.json", "signal.safetensors"
KIND, VERSION = "demo-session", 1
_WHAT = "the shipped session"
_STEEPEST = 126  # and one more where both ends of a step are rounded
_MOST_MARKERS = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class DemoSession:
    """A session from its first sample to its last.

    Attributes
    ----------
    modality
        "eeg" or "meg".
    channels
        In the order of the rows.
    sfreq
        Samples per second.
    data
        (n_channels, n_samples) float64, V or T.
    markers
        Sample and text of each, in the order of their samples.
    """

    modality: str
    channels: tuple[Channel, ...]
    sfreq: float
    data: F64
    markers: tuple[tuple[int, str], ...]


def write_session(folder: Path, session: DemoSession) -> None:
    """Write a session into a folder.

    Raises
    ------
    FileError
        It cannot be written.
    """
    steepest = np.abs(np.diff(session.data, axis=1)).max(axis=1, initial=0.0)
    flat = np.where(session.data[:, 0] == 0, 1.0, np.abs(session.data[:, 0]))
    scale = np.where(steepest > 0, steepest / _STEEPEST, flat)
    units = np.round(session.data / scale[:, None]).astype(np.int64)
    steps = np.zeros(units.shape, np.int8)
    steps[:, 1:] = np.diff(units, axis=1)
    write_tensors(folder / SIGNAL, {"steps": steps, "scale": scale, "first": units[:, 0].copy()})
    layout = ResponseLayout(
        modality=session.modality,
        shape=session.data.shape,
        channels=session.channels,
        sfreq=session.sfreq,
        tmin=0.0,
        unit=UNITS[session.modality][0],
    )
    about = {"format": f"minddiffuser-{KIND}", "version": VERSION, **layout.as_json()}
    write_json(folder / DESCRIPTION, {**about, "markers": [list(marker) for marker in session.markers]})


def read_session(folder: Path) -> DemoSession:
    """Read what :func:`write_session` wrote.

    Raises
    ------
    FileError
        Missing, damaged, or of another version.
    """
    path = folder / DESCRIPTION
    content = read_json(path, _WHAT)
    check_format(content, path, KIND, VERSION)
    top = Field(path, "", content, ADVICE)
    top.get("modality").choice(UNITS)
    layout = ResponseLayout.from_json(content, str(path), ADVICE)
    assert layout.channels is not None
    assert layout.sfreq is not None
    n_channels, n_samples = layout.shape
    arrays = read_tensors(folder / SIGNAL, f"{_WHAT}'s signal")
    expected = {
        "steps": (np.int8, (n_channels, n_samples)),
        "scale": (np.float64, (n_channels,)),
        "first": (np.int64, (n_channels,)),
    }
    check_arrays(arrays, folder / SIGNAL, expected, ADVICE)
    units = np.cumsum(arrays["steps"], axis=1, dtype=np.int64) + arrays["first"][:, None]
    data: F64 = units.astype(np.float64) * arrays["scale"][:, None]
    return DemoSession(
        modality=layout.modality,
        channels=layout.channels,
        sfreq=layout.sfreq,
        data=data,
        markers=_markers(top.get("markers").items(0, _MOST_MARKERS, "markers"), n_samples),
    )


def _markers(items: Sequence[Field], n_samples: int) -> tuple[tuple[int, str], ...]:
    found = []
    for item in items:
        sample, text = item.items(2, 2, "values, a sample and a text")
        found.append((sample.whole(0, n_samples - 1), text.text()))
    if any(later[0] < earlier[0] for earlier, later in zip(found, found[1:], strict=False)):
        raise FileError(f"{items[0].path}: the markers are not in the order of their samples: {ADVICE}")
    return tuple(found)
