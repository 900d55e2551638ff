"""A lab's own EEG or MEG: continuous recordings and a table that says what was shown when."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....runtime.data.layout import CHANNEL_TYPES
from ....runtime.errors import FileError, InputError
from ....runtime.signal.units import given_unit, unit_size
from ..reader import DataSet, Reader
from .mne_file import is_recording, open_mne
from .reader import Recordings
from .source import Recording
from .steps import ChainOptions
from .table import Table, find_table, read_table
from .xdf_file import SESSION, is_session, is_xdf, open_xdf

_EXAMPLE = """\
  md-train prepare recording my_lab --subject 1 --h-freq 40 --notch 50 --out data
"""


def open_recording(  # noqa: PLR0913 (the command's options)
    source: Path,
    *,
    subject: int,
    memory: int,
    table: Path | None = None,
    pictures: Path | None = None,
    stream: str | None = None,
    trigger: str | None = None,
    montage: str | None = None,
    unit: str | None = None,
    delay: float = 0.0,
    channels: Sequence[str] | None = None,
    reference: Sequence[str] = ("none",),
    l_freq: float = 0.1,
    h_freq: float = 40.0,
    notch: Sequence[float] = (),
    causal: bool = True,
    sfreq: float | None = None,
    tmin: float = -0.2,
    tmax: float = 1.0,
    baseline: Sequence[float] | None = None,
    no_baseline: bool = False,
    detrend: int | None = None,
    reject: Sequence[tuple[str, float]] = (),
    flat: Sequence[tuple[str, float]] = (),
    whiten: bool = False,
    keep_warm_up: bool = False,
) -> Reader:
    """Find and check a subject's recordings; the options are those of ``md-train prepare recording``.

    Raises
    ------
    FileError
        A file is missing, damaged, of another kind, or on another scale than it says.
    InputError
        An option or the table does not fit the recordings.
    """
    if not source.exists():
        raise FileError(f"{source} does not exist: give a recording, or the folder that holds the subject's recordings")
    given = read_table(table or find_table(source), pictures)
    size = None if unit is None else given_unit(unit)
    opened = [
        open_xdf(path, stream=stream, unit=size)
        if is_xdf(path)
        else open_mne(path, trigger=trigger, montage=montage, size=1.0 if size is None else size)
        for path in _find(source, given)
    ]
    opened = _whole(opened)
    if given.by != "event" and len(opened) > 1 and any(row.file is None for row in given.rows):
        raise InputError(
            f"{given.path} gives the {given.by} of events in {len(opened)} recordings: say which one in a column file"
        )
    if no_baseline:
        window = None
    elif baseline is not None:
        window = (float(baseline[0]), float(baseline[1]))
    else:
        window = (tmin, 0.0) if tmin < 0 else None
    options = ChainOptions(
        channels=None if channels is None else tuple(channels),
        reference=tuple(reference),
        l_freq=l_freq or None,
        h_freq=h_freq or None,
        notch=tuple(notch),
        causal=causal,
        sfreq=sfreq,
        tmin=tmin,
        tmax=tmax,
        baseline=window,
        detrend=detrend,
        peak_to_peak=dict(reject),
        flat=dict(flat),
    )
    return Recordings(
        f"sub-{subject:02d}",
        opened,
        given,
        options,
        whiten=whiten,
        keep_warm_up=keep_warm_up,
        delay=delay,
        how={"stream": stream, "trigger": trigger, "montage": montage, "unit": unit},
        memory=memory,
    )


def _find(source: Path, table: Table) -> list[Path]:
    """The recordings: those that the table names, or the source itself, or all in its folder."""
    if _may_be(source):
        return [_file(source)]
    if not source.is_dir():
        raise FileError(
            f"{source} has no ending of a recording that MNE or pyxdf reads: give .fif, .edf, .vhdr, .xdf …"
        )
    if table.files:
        return [_named(source, name) for name in table.files]
    found = sorted(_file(path) for path in source.iterdir() if _may_be(path))
    if not found:
        raise FileError(f"{source} holds no recording that MNE or pyxdf reads (.fif, .edf, .bdf, .vhdr, .set, .xdf …)")
    return found


def _whole(opened: list[Recording]) -> list[Recording]:
    """Without the further files of a recording that is split into several, which MNE reads with the first."""
    further = {path.resolve() for one in opened for path in one.files if path.resolve() != one.path.resolve()}
    return [one for one in opened if one.path.resolve() not in further]


def _may_be(path: Path) -> bool:
    return is_recording(path) or is_session(path) or (is_xdf(path) and not path.is_dir())


def _file(path: Path) -> Path:
    """A recording's file, or the signal in the folder of a session."""
    return path / SESSION[1] if is_session(path) else path


def _named(source: Path, name: str) -> Path:
    """A recording that the table names, with or without its ending."""
    if (source / name).exists():
        return _file(source / name)
    found = sorted(path for path in (source / name).parent.glob(f"{Path(name).name}.*") if _may_be(path))
    if len(found) != 1:
        raise FileError(f"the table names the recording {name}, and {source} holds {len(found)} of that name")
    return _file(found[0])


def _add_options(command: Any) -> None:
    files = command.add_argument_group("files")
    files.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="CSV or TSV with the columns picture, split (train or test), caption or concept, and one of event (a "
        "marker's text or a trigger's number), onset (s) and sample; and file, where the events of recordings differ "
        "(default: the table in SOURCE)",
    )
    files.add_argument("--pictures", type=Path, metavar="DIR", help="folder of the pictures (default: the table's)")
    files.add_argument(
        "--stream", metavar="NAME", help="the stream of an XDF file (default: the one of type EEG or MEG)"
    )
    files.add_argument(
        "--trigger",
        metavar="CHANNEL",
        help="channel of trigger codes (default: STI101 or STI 014 where there is one, else all stimulus channels)",
    )
    files.add_argument("--montage", metavar="NAME", help="positions of electrodes by name, such as easycap-M1")
    files.add_argument(
        "--unit", metavar="UNIT", help="unit of the numbers, such as uV or fT (default: as the file says)"
    )
    files.add_argument(
        "--delay", type=float, default=0.0, metavar="S", help="seconds from an event to the picture (default: 0)"
    )
    chain = command.add_argument_group("signal chain")
    chain.add_argument(
        "--channels", type=_words, metavar="NAMES", help="names or types, separated by commas (default: all EEG or MEG)"
    )
    chain.add_argument(
        "--reference",
        type=_words,
        default=("none",),
        metavar="NAMES",
        help="average, or channels separated by commas (default: none, as recorded)",
    )
    chain.add_argument(
        "--l-freq", type=float, default=0.1, metavar="HZ", help="high-pass, 0 for none (default: %(default)s)"
    )
    chain.add_argument(
        "--h-freq", type=float, default=40.0, metavar="HZ", help="low-pass, 0 for none (default: %(default)s)"
    )
    chain.add_argument("--notch", type=_numbers, default=(), metavar="HZ", help="remove the mains: 50, or 50,100,150")
    chain.add_argument(
        "--causal",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="filter forward in time only, so that what is trained can run live (default: yes)",
    )
    chain.add_argument(
        "--sfreq",
        type=float,
        metavar="HZ",
        help="rate of the epochs (default: at most 256, the recording's divided by a whole number)",
    )
    chain.add_argument("--tmin", type=float, default=-0.2, metavar="S", help="first sample (default: %(default)s)")
    chain.add_argument("--tmax", type=float, default=1.0, metavar="S", help="last sample (default: %(default)s)")
    chain.add_argument(
        "--baseline", type=float, nargs=2, metavar=("FROM", "TO"), help="window in seconds (default: tmin to 0)"
    )
    chain.add_argument("--no-baseline", action="store_true", help="subtract no baseline")
    chain.add_argument("--detrend", type=int, choices=(0, 1), help="subtract the mean (0) or a line (1) of each epoch")
    for name, what in (("--reject", "more"), ("--flat", "less")):
        chain.add_argument(
            name,
            type=_limit,
            action="append",
            default=[],
            metavar="TYPE=SIZE",
            help=f"leave out epochs of {what} than this from peak to peak: eeg=150uV; repeatable",
        )
    chain.add_argument("--whiten", action="store_true", help="whiten by the noise of the training trials (MVNN)")
    chain.add_argument("--keep-warm-up", action="store_true", help="keep epochs at the start, where filters settle")


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing: give names separated by commas")
    return words


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in _words(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of frequencies: give 50, or 50,100,150") from None


def _limit(text: str) -> tuple[str, float]:
    """A limit for a type of channel: "eeg=150uV", "mag=4pT", "eog=0.00025"."""
    kind, _, value = text.partition("=")
    match = re.fullmatch(r"(\d+\.?\d*(?:[eE][+-]?\d+)?)\s*(\D*)", value.strip())
    size = None if match is None else unit_size(match[2]) if match[2] else 1.0
    limit = 0.0 if match is None or size is None else float(match[1]) * size
    if kind not in CHANNEL_TYPES or limit <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no limit: give a type and a size, such as eeg=150uV or mag=4pT")
    return kind, limit


RECORDING = DataSet(
    help="a lab's own EEG or MEG",
    description="Continuous EEG or MEG of a subject: files that MNE reads (FIF, EDF, BDF, BrainVision, EEGLAB, CTF …) "
    "or XDF, or sessions of md-stream; and a table of events and pictures. SOURCE is a recording, or the folder of all "
    "of them.",
    example=_EXAMPLE,
    open=open_recording,
    add_options=_add_options,
    averages=("test",),
)
