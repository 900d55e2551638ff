"""Where NSD's files lie: in the folders of its own bucket, or anywhere below SOURCE under their own names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ....runtime.errors import FileError, InputError

# What each subject's sessions are in the whole release.
SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)
_BUCKET = "s3://natural-scenes-dataset"
_SESSION = re.compile(r"betas_session(\d+)\.(hdf5|mat|nii\.gz|nii)")
_ORDER = ("hdf5", "mat", "nii.gz", "nii")  # where a session is there in several forms, the first is read

DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
STIM_INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
STIMULI = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
ANNOTATIONS = "nsddata_stimuli/stimuli/nsd/annotations"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One subject's folders below the source: of which space and which version of the betas."""

    source: Path
    number: int
    space: str = "func1pt8mm"
    betas: str = "betas_fithrf_GLMdenoise_RR"

    @property
    def name(self) -> str:
        """As NSD's folders are named."""
        return f"subj{self.number:02d}"

    @property
    def beta_folder(self) -> Path:
        """Where the sessions lie."""
        return self.source / "nsddata_betas/ppdata" / self.name / self.space / self.betas

    @property
    def roi_folder(self) -> Path:
        """Where masks and atlases lie."""
        return self.source / "nsddata/ppdata" / self.name / self.space / "roi"

    def label_file(self, atlas: str) -> Path:
        """The names of an atlas's values: prf-visualrois are a subject's own, other atlases are of fsaverage."""
        places = [self.source / "nsddata/freesurfer" / whose / "label" for whose in (self.name, "fsaverage")]
        paths = [place / f"{atlas}.mgz.ctab" for place in places]
        for path in (*paths, self.roi_folder / f"{atlas}.mgz.ctab"):
            if path.is_file():
                return path
        return find(self.source, str(paths[1].relative_to(self.source)), f"the table of the regions of {atlas}")


def find(source: Path, place: str, what: str) -> Path:
    """A file in its own place below the source, or the only one of that name anywhere below it.

    Raises
    ------
    FileError
        There is none, or there are several.
    """
    path = source / place
    if path.is_file():
        return path
    found = sorted(source.rglob(path.name))
    if len(found) == 1:
        return found[0]
    if found:
        raise FileError(
            f"{what} lies at {found[0]} and at {found[1]}: keep one of them below {source}, best as {place}"
        )
    raise FileError(f"{what} is missing: put {path.name} into {path.parent} (in NSD's bucket it is {_BUCKET}/{place})")


def maybe(source: Path, place: str, what: str) -> Path | None:
    """As :func:`find`; None where there is none."""
    if (source / place).is_file() or any(source.rglob(Path(place).name)):
        return find(source, place, what)
    return None


def session_files(subject: Subject, wanted: Sequence[int] | None) -> dict[int, Path]:
    """Each session's file, in order.

    Parameters
    ----------
    subject : whose.
    wanted : the sessions to read, from 1; None for all that are there, which must be the first ones without a gap.

    Raises
    ------
    FileError
        A session is missing, or there is none.
    """
    folder = subject.beta_folder
    found: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _SESSION.fullmatch(path.name)
        if match is not None:
            found.setdefault(int(match[1]), {})[match[2]] = path
    if not found:
        raise FileError(
            f"{folder} holds no session of betas: put betas_session01.hdf5 and so on there (in NSD's bucket "
            f"{_BUCKET}/nsddata_betas/ppdata/{subject.name}/{subject.space}/{subject.betas}/), or check --subject"
        )
    numbers = list(range(1, max(found) + 1)) if wanted is None else list(wanted)
    missing = [number for number in numbers if number not in found]
    if missing:
        have = spans(sorted(found))
        cure = f"give --sessions {have}" if wanted is None else "leave them out of --sessions"
        raise FileError(
            f"sessions {spans(missing)} are missing from {folder}, which has {have}: copy them there, or {cure}"
        )
    return {number: next(found[number][kind] for kind in _ORDER if kind in found[number]) for number in numbers}


def sessions_of(text: str) -> tuple[int, ...]:
    """Read "1-37" or "1-10,12": session numbers from 1, ascending.

    Raises
    ------
    InputError
        It says something else.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})(?:-(\d{1,3}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last:
            raise InputError(f"sessions {text!r} cannot be read: give numbers from 1 such as 1-37 or 1-10,12")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers as :func:`sessions_of` reads them."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
