"""FIF, MNE's own files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ...runtime.errors import InputError
from ...runtime.files import writing
from .continuous import Part
from .raw import raw_of
from .settings import ExportSettings

_ENDINGS = ("_raw.fif", "_eeg.fif", "_meg.fif")


def write_fif(parts: Sequence[Part], started: datetime | None, out: Path, settings: ExportSettings) -> list[Path]:
    """Write ``NAME_raw.fif``, or ``NAME_part-1_raw.fif`` and so on.

    Raises
    ------
    InputError
        The name has another ending than MNE wants, or the file exists.
    FileError
        The disk refuses.
    """
    ending = next((one for one in _ENDINGS if out.name.endswith(one)), None)
    if ending is None:
        raise InputError(f"--out is {out.name}: MNE wants names that end in {', '.join(_ENDINGS)}")
    stem = out.name.removesuffix(ending)
    names = [out.name] if len(parts) == 1 else [f"{stem}_part-{k + 1}{ending}" for k in range(len(parts))]
    paths = [out.with_name(name) for name in names]
    for path in paths:
        if path.exists():
            raise InputError(f"{path} exists: give another --out")
    for part, path in zip(parts, paths, strict=True):
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            raw_of(part, started, in_latin=True).save(
                path, fmt="single" if settings.single else "double", verbose="error"
            )
            for made in (path, *path.parent.glob(f"{path.stem}-*.fif")):  # MNE splits what is larger than 2 GB
                made.chmod(0o600)
    return paths
