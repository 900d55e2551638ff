"""THINGS-EEG2 (Gifford et al. 2022) for ``md-train prepare``: which of its forms a folder holds."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ....runtime.errors import FileError, InputError
from ..nsd.files import sessions_of, spans
from ..reader import DataSet, Reader
from . import eeg2_bids, eeg2_epochs, eeg2_raw, names
from .eeg2_images import PictureSet, find_pictures
from .recorded import RecordedReader, Recording

FORMS = ("raw", "bids", "epochs")
CHANNELS = ("posterior", "all")
WINDOWS = ("gifford", "nice")
N_SESSIONS = 4
# Folders of a BIDS data set in which subjects' folders have another meaning.
_NOT_SEARCHED = ("sourcedata", "derivatives", "code")
_SUBJECT = re.compile(r"sub-\d+")


def open_eeg2(  # noqa: PLR0913 (what the command offers)
    source: Path,
    *,
    subject: int,
    memory: int,
    form: str | None = None,
    images: Path | None = None,
    channels: str | None = None,
    window: str = "gifford",
    causal: bool = False,
    whiten: bool = True,
    sessions: Sequence[int] | None = None,
) -> Reader:
    """Find a subject's recordings or epochs.

    Parameters
    ----------
    source
        The folder of the data set, of one of its forms, or of the subject.
    subject
        From 1.
    memory
        In bytes.
    form
        One of `FORMS`; None for the one that is there.
    images
        The folder that holds training_images and test_images; None to look for it.
    channels
        "posterior" or "all"; None for posterior ones of recordings, and for those that epochs have.
    window, causal, whiten
        How recordings become epochs, see runtime/signal/published.py. Epochs are taken as they are.
    sessions
        Which sessions of recordings; None for all four.

    Raises
    ------
    FileError, InputError
        Nothing is found, several forms are, a file is missing or wrong, or an option does not fit the form.
    """
    from ....runtime.signal.published import eeg2_chain, posterior

    found, folder = _subject_folder(source, subject, form)
    pictures = find_pictures(source, images)
    name = f"things-eeg2-sub-{subject:02d}"
    if found == "epochs":
        given = {"--window": window != "gifford", "--causal": causal, "--no-whitening": not whiten}
        unused = [option for option, used in {**given, "--sessions": sessions is not None}.items() if used]
        if unused:
            raise InputError(
                f"{unused[0]} is for recordings, and {folder} holds epochs that were made already: leave it out, or "
                "prepare the raw recordings"
            )
        return eeg2_epochs.EpochsReader(name, folder, pictures, channels=channels, memory=memory)
    recordings = (_raw if found == "raw" else _bids)(folder, pictures, sessions)
    first = recordings[0].open()
    there = [channel.name for channel in first.channels]
    wanted = there if channels == "all" else posterior(there)
    if not wanted:
        raise FileError(
            f"{first.files[0]} has no occipital or parietal channel (its {len(there)} channels: "
            f"{', '.join(there[:6])}, ...): is it a recording of THINGS-EEG2?"
        )
    shown, _first = pictures.shown()
    of_sessions = sorted({one.session for one in recordings})
    return RecordedReader(
        subject=name,
        pictures=shown,
        files={**{path: "recording" for one in recordings for path in one.files}, **pictures.files},
        settings={"form": found, "window": window, "causal": causal, "sessions": of_sessions},
        notes=(
            f"{found} recordings of sessions {', '.join(map(str, of_sessions))}",
            f"{len(wanted)} of {len(there)} channels",
            pictures.note,
            names.NO_CAPTIONS,
        ),
        recordings=[one.open for one in recordings],
        signal=eeg2_chain(window, first.sfreq, causal=causal),
        channels=wanted,
        whiten=whiten,
        memory=memory,
    )


def _subject_folder(source: Path, subject: int, form: str | None) -> tuple[str, Path]:
    """The form that is there, and the subject's folder of that form."""
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise FileError(f"the folder {source} {what}: give the folder of THINGS-EEG2's files")
    name = f"sub-{subject:02d}"
    if _SUBJECT.fullmatch(source.name) and source.name != name:
        raise FileError(
            f"{source} is the folder of {source.name}, and --subject is {subject}: give one subject for both"
        )
    bases = [path for path in sorted(source.iterdir()) if path.is_dir() and path.name not in _NOT_SEARCHED]
    folders = [source / name, *(base / name for base in bases)]
    if source.name == name:
        folders.insert(0, source)
    folders += [folder / name for folder in folders]  # as archives of the raw recordings unpack
    found = [(kind, folder) for folder in folders if folder.is_dir() for kind in FORMS if _holds(kind, folder)]
    if form is not None:
        found = [(kind, folder) for kind, folder in found if kind == form]
    if len(found) == 1:
        return found[0]
    if found:
        named = ", ".join(f"{kind} in {folder}" for kind, folder in found)
        raise FileError(
            f"{source} holds {name} in several forms ({named}): choose with --form, or give one of these folders"
        )
    packed = next((path for path in source.glob(f"**/{name}.zip")), None)
    if packed is not None:
        raise FileError(f"the recordings of {name} are still packed in {packed}: unpack it there")
    others = sorted({path.name for path in source.glob("**/sub-*") if path.is_dir() and path.name != name})
    there = f"; there are {', '.join(others[:10])}" if others else ""
    raise FileError(
        f"{source} holds no {form or 'recordings or epochs'} of {name} (such as "
        f"{name}/ses-01/{eeg2_raw.FILES['train']} "
        f"or {name}/{eeg2_epochs.FILES['train']}){there}: give the folder of THINGS-EEG2's files and a subject "
        "that is there"
    )


def _holds(form: str, folder: Path) -> bool:
    if form == "raw":
        return any(any(folder.glob(f"ses-*/{name}")) for name in eeg2_raw.FILES.values())
    if form == "bids":
        return any(path.suffix.lower() in eeg2_bids.SUFFIXES for path in folder.glob("ses-*/eeg/*_eeg.*"))
    return any((folder / name).exists() for name in eeg2_epochs.FILES.values())


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A recording that is there."""

    session: int
    files: tuple[Path, ...]
    open: Callable[[], Recording]


def _raw(folder: Path, pictures: PictureSet, sessions: Sequence[int] | None) -> list[_Found]:
    first = pictures.shown()[1]
    wanted = _sessions(folder, sessions)
    found = []
    for session in wanted:
        for split, name in eeg2_raw.FILES.items():
            path = folder / f"ses-{session:02d}" / name
            if not path.exists():
                raise FileError(
                    f"session {session} of {folder.name} has no {name}: copy {path}, or leave the session out with "
                    f"--sessions"
                )
            n_pictures = len(pictures.paths[split])
            opened = partial(eeg2_raw.open_raw_dictionary, path, session, split, first[split], n_pictures)
            found.append(_Found(session=session, files=(path,), open=opened))
    return found


def _bids(folder: Path, pictures: PictureSet, sessions: Sequence[int] | None) -> list[_Found]:
    first = pictures.shown()[1]
    wanted = _sessions(folder, sessions)
    files = eeg2_bids.recordings_in(folder)
    for session in wanted:
        for split in eeg2_raw.FILES:
            if not any(key[:2] == (session, split) for key in files):
                raise FileError(
                    f"session {session} of {folder.name} has no recording of task-{split}: copy it, or leave the "
                    "session "
                    "out with --sessions"
                )
    return [
        _Found(
            session=session,
            files=(path, eeg2_bids.events_of(path)),
            open=partial(
                eeg2_bids.open_bids,
                path,
                session,
                split,
                run,
                first=first[split],
                n_pictures=len(pictures.paths[split]),
            ),
        )
        for (session, split, run), path in files.items()
        if session in wanted
    ]


def _sessions(folder: Path, sessions: Sequence[int] | None) -> list[int]:
    there = {int(path.name[4:]) for path in folder.glob("ses-*") if path.name[4:].isdigit()}
    wanted = sorted(set(sessions)) if sessions is not None else list(range(1, N_SESSIONS + 1))
    missing = [session for session in wanted if session not in there]
    if missing:
        rest = spans(sorted(there))
        raise FileError(
            f"session {missing[0]} of {folder.name} is missing: {folder} holds sessions {rest}, and THINGS-EEG2 has "
            f"{N_SESSIONS}; copy ses-{missing[0]:02d}, or give --sessions {rest} to go on without it"
        )
    return wanted


def _add_options(command: Any) -> None:
    command.add_argument(
        "--form",
        choices=FORMS,
        help="raw: raw_eeg_*.npy; bids: NEMAR's nm000232; epochs: preprocessed_eeg_*.npy, of Gifford et al. or of NICE "
        "(default: what is there)",
    )
    command.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder with training_images and test_images (default: looked for in SOURCE and above it)",
    )
    command.add_argument(
        "--channels",
        choices=CHANNELS,
        help="posterior: the 17 occipital and parietal ones; all: 63 (default: posterior of recordings; what "
        "epochs have)",
    )
    command.add_argument(
        "--window",
        choices=WINDOWS,
        default="gifford",
        help="of recordings. gifford: -0.2 to 0.8 s at 100 Hz; nice: 0 to 1 s at 250 Hz (default: %(default)s)",
    )
    command.add_argument("--causal", action="store_true", help="filter recordings forward only, as a live system must")
    command.add_argument(
        "--no-whitening", dest="whiten", action="store_false", help="leave recordings in V, without noise normalisation"
    )
    command.add_argument(
        "--sessions",
        type=_session_numbers,
        metavar="N-M",
        help="sessions of recordings, such as 1-3 (default: all four)",
    )


def _session_numbers(text: str) -> tuple[int, ...]:
    try:
        return sessions_of(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


THINGS_EEG2 = DataSet(
    help="EEG of ten subjects who saw 16,740 pictures (Gifford et al. 2022)",
    description="Read one subject of THINGS-EEG2, raw or prepared, and write a data folder. Raw recordings are "
    "filtered "
    "from 0.1 to 100 Hz (40 Hz for 100 samples per second), cut into epochs with a baseline of 200 ms, and whitened by "
    "a matrix that is fitted on training trials alone. Epochs that Gifford et al. or NICE prepared are taken as "
    "they are.",
    example="  md-train simulate eeg --format things-eeg2 --out things_eeg2 --seed 7 --n-train 96 --n-test 12\n"
    "  md-train prepare things-eeg2 things_eeg2 --form raw --subject 1 --image-size 64 --out data\n",
    open=open_eeg2,
    add_options=_add_options,
)
