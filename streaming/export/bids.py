"""BIDS, by mne-bids: EEG as BrainVision, MEG as FIF."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ...runtime.errors import InputError
from ...runtime.files import writing
from .continuous import Part
from .raw import raw_of
from .settings import ExportSettings

_MEG = ("mag", "grad", "ref_meg")


def write_bids(parts: Sequence[Part], started: datetime | None, out: Path, settings: ExportSettings) -> list[Path]:
    """Write a run for each part into a BIDS folder, which may have other subjects and runs.

    Raises
    ------
    InputError
        The run is there already.
    FileError
        The disk refuses.
    """
    from mne_bids import BIDSPath, write_raw_bids

    written: list[Path] = []
    for number, part in enumerate(parts, start=1):
        raw = raw_of(part, started)
        raw.info["line_freq"] = settings.line_freq
        meg = any(channel.type in _MEG for channel in part.channels)
        where: Any = BIDSPath(
            root=out, subject=settings.subject, session=settings.session or None, task=settings.task,
            run=None if len(parts) == 1 else f"{number:02d}", datatype="meg" if meg else "eeg",
        )  # fmt: skip
        if where.directory.is_dir() and any(where.directory.glob(f"{where.basename}_*")):
            raise InputError(f"{where.directory} has {where.basename} already: give another --session-label or --task")
        with writing(out):
            made = write_raw_bids(
                raw, where, format="FIF" if meg else "BrainVision", allow_preload=True, verbose="error"
            )
        written.append(Path(made.fpath))
    return written
