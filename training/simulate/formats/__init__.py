"""Formats that a simulated subject is written in: one file and one line here add another.

The file holds ``write(out, subject, *, progress)``: `out` is a new, empty folder, which takes its place when all is
written; `subject` is a :class:`~..base.VoxelSubject` or :class:`~..base.SensorSubject`, with single trials (a test
picture's showings are not averaged); `progress` is called with (phase, done, total).
"""

from __future__ import annotations

from dataclasses import dataclass

NATIVE = "native"


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format: its module in this package, the modalities that have it, and what it is, for the command's help."""

    module: str
    modalities: tuple[str, ...]
    made_of: str


# The data folder itself is written by the commands' own way (../subject.py, ../recording.py), all others from here.
FORMATS: dict[str, Format] = {
    "nsd": Format(module="nsd", modalities=("fmri",), made_of="a miniature of the Natural Scenes Dataset's files"),
    "things-eeg2": Format(
        module="things_eeg2",
        modalities=("eeg",),
        made_of="the files of THINGS-EEG2: raw recordings, epochs of both kinds, pictures",
    ),
    "things-meg": Format(
        module="things_meg",
        modalities=("meg",),
        made_of="the files of THINGS-MEG: raw runs, epochs, list of trials, pictures",
    ),
}


def formats_of(modality: str) -> tuple[str, ...]:
    """The names that --format takes for a modality."""
    return (NATIVE, *(name for name, known in FORMATS.items() if modality in known.modalities))
