"""MNE, which reads EEG and MEG files, where it is installed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ....runtime.data.layout import Channel
from ....runtime.errors import FileError, MissingExtra

# The 10-05 system by its name in MNE, and by the one before 1.11.
_MONTAGES = ("colin27_1005", "standard_1005")


def mne_library() -> Any:
    """The module.

    Raises
    ------
    MissingExtra
        It is not installed.
    """
    try:
        import mne
    except ModuleNotFoundError as error:
        raise MissingExtra(f"THINGS-EEG2 and THINGS-MEG need {error.name}: pip install 'minddiffuser[data]'") from error
    return mne


def open_raw(path: Path, what: str) -> Any:
    """A continuous recording, not read yet; the reader goes by the name's ending.

    Raises
    ------
    FileError
        It is missing, truncated or of another kind.
    """
    mne = mne_library()
    try:
        return mne.io.read_raw(path, preload=False, verbose="error")
    except Exception as error:  # the readers raise a dozen types for damaged files
        raise cannot_read(what, path, error) from error


def cannot_read(what: str, path: Path, error: Exception) -> FileError:
    """What to say of a file that MNE cannot read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return FileError(f"{what} at {path} cannot be read ({reason:.120}): it is truncated or damaged, copy it again")


@cache
def cap(names: tuple[str, ...]) -> tuple[Channel, ...]:
    """EEG channels with the places of the 10-05 system on MNE's head, in metres; none where a name is not of it."""
    mne = mne_library()
    known_as = next(name for name in _MONTAGES if name in mne.channels.get_builtin_montages())
    montage = mne.channels.make_standard_montage(known_as)
    known = set(montage.ch_names)
    info = mne.create_info([name for name in names if name in known], 1000.0, "eeg")
    info.set_montage(montage, verbose="error")
    places = {ch["ch_name"]: _place(ch["loc"]) for ch in info["chs"]}
    return tuple(Channel(name=name, type="eeg", position=places.get(name)) for name in names)


def _place(loc: Any) -> tuple[float, float, float]:
    return float(loc[0]), float(loc[1]), float(loc[2])
