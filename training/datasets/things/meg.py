"""THINGS-MEG (Hebart et al. 2023, OpenNeuro ds004212) for ``md-train prepare``: the published epochs, or raw runs."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from ....runtime.errors import FileError, InputError
from ..reader import DataSet, Reader
from . import meg_raw, names
from .meg_attributes import Trials, find_images, read_trials, showings
from .meg_epochs import EpochsReader
from .recorded import RecordedReader

FORMS = ("epochs", "raw")
_OTHER = re.compile(r"sub-BIGMEG(\d+)|preprocessed_P(\d+)-epo\.fif")
_EPOCHS_IN = ("", "derivatives/preprocessed", "preprocessed")
_TABLE_IN = ("sourcedata", "", "derivatives/preprocessed", "../sourcedata", "../../sourcedata")


def open_meg(
    source: Path,
    *,
    subject: int,
    memory: int,
    form: str | None = None,
    images: Path | None = None,
    causal: bool = False,
) -> Reader:
    """Find a subject's epochs or recordings.

    Parameters
    ----------
    source
        The folder of the data set, or the one that holds preprocessed_P*-epo.fif.
    subject
        From 1.
    memory
        In bytes.
    form
        One of `FORMS`; None for the one that is there.
    images
        The folder below which the pictures lie; None to look for it.
    causal
        Filter recordings forward only.

    Raises
    ------
    FileError, InputError
        Nothing is found, both forms are, a file is missing or wrong, or an option does not fit the form.
    """
    found, path = _found(source, subject, form)
    table = _table(source, path, subject)
    name = f"things-meg-P{subject}"
    place = find_images(source, images)
    if found == "epochs":
        if causal:
            raise InputError(
                f"--causal is for recordings, and {path} holds epochs that were made already: leave it out, or give "
                "--form raw"
            )
        return EpochsReader(name, path, table, place, memory=memory)
    if table is None:
        raise FileError(
            f"raw recordings need the list of their trials: put sample_attributes_P{subject}.csv into "
            f"{source}/sourcedata"
        )
    return _raw_reader(name, path, subject, table, place, causal, memory)


def _raw_reader(
    name: str, folder: Path, subject: int, table: Trials, images: Path, causal: bool, memory: int
) -> Reader:
    from ....runtime.signal.published import meg_chain

    shown = showings(table, images)
    runs = meg_raw.runs_in(folder)
    listed = sorted(set(zip(table.sessions.tolist(), table.runs.tolist(), strict=True)))
    missing = [pair for pair in listed if pair not in runs]
    if missing:
        session, run = missing[0]
        raise FileError(
            f"run {run} of session {session} is missing in {folder} ({len(missing)} of {len(listed)} runs that "
            f"{table.path} lists are): copy it"
        )
    opened = [
        partial(meg_raw.open_run, runs[session, run], subject, session, run, table, shown) for session, run in listed
    ]
    first = opened[0]()
    return RecordedReader(
        subject=name,
        pictures=shown.pictures,
        files={**{runs[pair]: "recording" for pair in listed}, table.path: "list of the trials"},
        settings={"form": "raw", "causal": causal},
        notes=(
            f"{len(listed)} runs of {len({session for session, _run in listed})} sessions; pictures timed by the "
            f"triggers of {meg_raw.TRIGGERS}; {len(first.channels)} channels",
            shown.note,
            names.NO_CAPTIONS,
        ),
        recordings=opened,
        signal=meg_chain(first.sfreq, causal=causal),
        channels=[channel.name for channel in first.channels],
        whiten=False,
        memory=memory,
    )


def _found(source: Path, subject: int, form: str | None) -> tuple[str, Path]:
    if not source.is_dir():
        what = "is a file" if source.exists() else "does not exist"
        raise FileError(f"the folder {source} {what}: give the folder of THINGS-MEG's files")
    file = f"preprocessed_P{subject}-epo.fif"
    found = [("epochs", source / place / file) for place in _EPOCHS_IN if (source / place / file).exists()]
    folder = source / f"sub-BIGMEG{subject}"
    if meg_raw.runs_in(folder):
        found.append(("raw", folder))
    if form is not None:
        found = [(kind, path) for kind, path in found if kind == form]
    if len(found) == 1:
        return found[0]
    if found:
        named = ", ".join(f"{kind} in {path}" for kind, path in found)
        raise FileError(f"{source} holds P{subject} in several forms ({named}): choose with --form")
    others = {match[1] or match[2] for path in source.rglob("*") if (match := _OTHER.fullmatch(path.name))}
    there = f"; there are {', '.join(f'P{n}' for n in sorted(others))}" if others else ""
    raise FileError(
        f"{source} holds no {form or 'epochs or recordings'} of P{subject} (such as {file} or "
        f"sub-BIGMEG{subject}/ses-01/"
        f"meg){there}: give the folder of THINGS-MEG's files and a subject that is there"
    )


def _table(source: Path, path: Path, subject: int) -> Trials | None:
    name = f"sample_attributes_P{subject}.csv"
    for place in [*(source / inner / name for inner in _TABLE_IN), path.parent / name]:
        if place.exists():
            return read_trials(place)
    return None


def _add_options(command: Any) -> None:
    command.add_argument(
        "--form",
        choices=FORMS,
        help="epochs: preprocessed_P*-epo.fif; raw: the CTF recordings of sub-BIGMEG* (default: what is there)",
    )
    command.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the pictures: images_meg and images_test_meg, or a folder for each concept (default: "
        "looked for "
        "in SOURCE and beside it)",
    )
    command.add_argument("--causal", action="store_true", help="filter recordings forward only, as a live system must")


THINGS_MEG = DataSet(
    help="MEG of four subjects who saw 22,448 pictures (Hebart et al. 2023)",
    description="Read one subject of THINGS-MEG and write a data folder of 0 to 1 s at 200 Hz. Training trials of the "
    "test pictures' concepts are left out (zero-shot split).",
    example="  md-train simulate meg --format things-meg --out things_meg --seed 7 --n-train 96 --n-test 12\n"
    "  md-train prepare things-meg things_meg --form epochs --subject 1 --image-size 64 --out data\n",
    open=open_meg,
    add_options=_add_options,
)
